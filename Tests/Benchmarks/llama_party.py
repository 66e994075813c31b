"""llama.cpp, through llama-cpp-python's bindings of its C interface: no sampling, no Python loops
over values in what is timed."""

import argparse
import ctypes
import os
import time

import llama_cpp
import numpy
from llama_cpp import mtmd_cpp

import gguf_files
import work


@llama_cpp.llama_log_callback
def _silent(level, text, data):
    pass


class Language:
    def __init__(self, path, threads, flash=True):
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = work.GREATEST_BATCH * 512
        context.n_batch = context.n_ubatch = 512
        context.n_seq_max = work.GREATEST_BATCH
        context.n_threads = context.n_threads_batch = threads
        context.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.filled = 0

    def _decode(self, rows):
        """Rows of (token, position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        began = time.perf_counter()
        status = llama_cpp.llama_decode(self.context, batch)
        # Waits for the result.
        llama_cpp.llama_get_logits_ith(self.context, -1)
        seconds = time.perf_counter() - began
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        return seconds

    def _fill(self, sequence):
        ids = work.prompt(sequence)
        last = len(ids) - 1
        return self._decode(
            [(token, position, sequence, position == last) for position, token in enumerate(ids)])

    def prefill(self):
        llama_cpp.llama_memory_clear(self.memory, False)
        self.filled = 0
        return {"seconds": self._fill(0)}

    def decode(self, count, steps=work.DECODE_STEPS):
        """Seconds of one step for so many sequences: the middle of some steps."""
        count, steps = int(count), int(steps)
        if self.filled == 0:
            llama_cpp.llama_memory_clear(self.memory, False)
        while self.filled < count:
            self._fill(self.filled)
            self.filled += 1
        first = work.PROMPT_TOKENS
        spans = [
            self._decode([
                (work.token(position, sequence), position, sequence, True)
                for sequence in range(count)])
            for position in range(first, first + steps)]
        for sequence in range(count):
            llama_cpp.llama_memory_seq_rm(self.memory, sequence, first, -1)
        return {"seconds": sum(spans) / len(spans)}

    def logits(self, path):
        """[320, V]: the logits of every position of the prompt."""
        llama_cpp.llama_memory_clear(self.memory, False)
        self.filled = 0
        ids = work.prompt()
        self._decode([(token, position, 0, True) for position, token in enumerate(ids)])
        rows = [
            numpy.ctypeslib.as_array(
                llama_cpp.llama_get_logits_ith(self.context, index), (work.VOCABULARY,)).copy()
            for index in range(len(ids))]
        numpy.save(path, numpy.stack(rows))


class Vision:
    def __init__(self, language, path, threads, flash=True):
        parameters = mtmd_cpp.mtmd_context_params_default()
        parameters.use_gpu = False
        parameters.n_threads = threads
        parameters.print_timings = False
        parameters.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        self.context = mtmd_cpp.mtmd_init_from_file(
            os.fsencode(path), language.model, parameters)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot load {path}")
        side = work.IMAGE_SIDE
        data = work.picture().tobytes()
        bytes_type = ctypes.c_uint8 * len(data)
        bitmap = mtmd_cpp.mtmd_bitmap_init(side, side, bytes_type.from_buffer_copy(data))
        self.chunks = mtmd_cpp.mtmd_input_chunks_init()
        marker = mtmd_cpp.mtmd_default_marker()
        text = mtmd_cpp.mtmd_input_text()
        text.text, text.text_len = marker, len(marker)
        text.add_special, text.parse_special = False, True
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        status = mtmd_cpp.mtmd_tokenize(
            self.context, self.chunks, ctypes.byref(text), bitmaps, 1)
        if status != 0:
            raise SystemExit(f"llama.cpp cannot take the picture (status {status})")
        self.chunk = next(
            chunk for chunk in (
                mtmd_cpp.mtmd_input_chunks_get(self.chunks, index)
                for index in range(mtmd_cpp.mtmd_input_chunks_size(self.chunks)))
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == 1)
        self.count = mtmd_cpp.mtmd_input_chunk_get_n_tokens(self.chunk)
        self.width = llama_cpp.llama_model_n_embd(language.model)

    def image(self):
        status = mtmd_cpp.mtmd_encode_chunk(self.context, self.chunk)
        if status != 0:
            raise RuntimeError(f"mtmd_encode_chunk returned {status}")

    def rows(self, path):
        """[256, D]: the picture's rows for the language model."""
        self.image()
        rows = mtmd_cpp.mtmd_get_output_embd(self.context)
        numpy.save(path, numpy.ctypeslib.as_array(rows, (self.count, self.width)).copy())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--language")
    parser.add_argument("--vision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-flash", action="store_true")
    options = parser.parse_args()
    llama_cpp.llama_log_set(_silent, None)
    # The vision part wants a language model beside it: the smallest there is.
    language = Language(
        gguf_files.language_path(options.folder, options.language or "Q4_0"), options.threads,
        not options.no_flash)
    works = {
        "prefill": language.prefill, "decode": language.decode, "logits": language.logits,
        "system": lambda: {"system": llama_cpp.llama_print_system_info().decode()},
    }
    if options.vision:
        vision = Vision(
            language, gguf_files.vision_path(options.folder, options.vision), options.threads,
            not options.no_flash)
        works |= {"image": vision.image, "rows": vision.rows}
    work.answer(works)


if __name__ == "__main__":
    main()
