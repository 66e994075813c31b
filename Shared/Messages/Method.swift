/// A method of a service, as its proto file declares it.
public struct Method<Request: Message, Response: Message>: Sendable {
  /// "chiasm.v1.Service/Method".
  public let name: String
  /// Whether it answers with a stream of responses instead of one.
  public let streams: Bool

  public init(_ name: String, streams: Bool = false) {
    self.name = name
    self.streams = streams
  }
}

/// Every method of package `chiasm.v1`, by service.
public enum Methods {
  public enum Health {
    public static let check = Method<HealthCheckRequest, HealthCheckResponse>(
      "chiasm.v1.Health/Check")
    public static let watch = Method<HealthCheckRequest, HealthCheckResponse>(
      "chiasm.v1.Health/Watch", streams: true)
  }

  public enum Stage {
    public static let describe = Method<DescribeRequest, StageDescription>(
      "chiasm.v1.Stage/Describe")
    public static let attach = Method<AttachRequest, AttachReply>(
      "chiasm.v1.Stage/Attach", streams: true)
  }

  public enum VisionEncoder {
    public static let encode = Method<EncodeRequest, EncodeReply>(
      "chiasm.v1.VisionEncoder/Encode")
  }

  public enum Projector {
    public static let project = Method<EncodeRequest, EncodeReply>("chiasm.v1.Projector/Project")
  }

  public enum LanguageModel {
    public static let step = Method<StepRequest, StepReply>("chiasm.v1.LanguageModel/Step")
    public static let placeImage = Method<EncodeRequest, EncodeReply>(
      "chiasm.v1.LanguageModel/PlaceImage")
    public static let end = Method<EndRequest, EndReply>("chiasm.v1.LanguageModel/End")
  }

  public enum Gateway {
    public static let chat = Method<ChatRequest, ChatEvent>(
      "chiasm.v1.Gateway/Chat", streams: true)
    public static let describe = Method<DescribeRequest, GatewayDescription>(
      "chiasm.v1.Gateway/Describe")
  }

  public enum Trainer {
    public static let prepare = Method<PrepareTrainingRequest, PrepareTrainingReply>(
      "chiasm.v1.Trainer/Prepare")
    public static let feed = Method<FeedRequest, FeedReply>("chiasm.v1.Trainer/Feed")
    public static let step = Method<TrainingStepRequest, TrainingStepReply>(
      "chiasm.v1.Trainer/Step")
    public static let forward = Method<ForwardRequest, ForwardReply>("chiasm.v1.Trainer/Forward")
    public static let update = Method<UpdateRequest, UpdateReply>("chiasm.v1.Trainer/Update")
    public static let abandon = Method<AbandonRequest, AbandonReply>("chiasm.v1.Trainer/Abandon")
    public static let release = Method<ReleaseTrainingRequest, ReleaseTrainingReply>(
      "chiasm.v1.Trainer/Release")
    public static let save = Method<SaveRequest, SaveReply>("chiasm.v1.Trainer/Save")
    public static let fetch = Method<FetchRequest, FetchReply>("chiasm.v1.Trainer/Fetch")
  }

  public enum TrainingGateway {
    public static let train = Method<TrainRequest, TrainEvent>(
      "chiasm.v1.TrainingGateway/Train", streams: true)
  }
}
