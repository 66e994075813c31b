import ArgumentParser
import Mesh

/// Which mesh of this machine a command is about.
struct MeshLocation: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The mesh's run directory (default: $CHIASM_RUN, else $XDG_RUNTIME_DIR/chiasm).",
      valueName: "folder"))
  var directory: String?

  var runDirectory: RunDirectory {
    RunDirectory(path: directory ?? RunDirectory.standardPath(Environment.current))
  }
}
