"""Writes the tokenizer models and cases.json beside this file.

What transformers 4.37.2's slow LlamaTokenizer makes of many strings and id sequences, for several
models and configurations. Needs transformers==4.37.2, sentencepiece and protobuf:

    python make_cases.py
"""

import io
import json
import os
import random
import shutil
import tempfile

import sentencepiece
from transformers import LlamaTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))

CORPUS = """
The quick brown fox jumps over the lazy dog. Answer the questions. Describe the picture in one
sentence. What is in the picture? A red circle on a green field, and a blue square.
It's 3.14159, isn't it? Numbers: 0 1 2 3 4 5 6 7 8 9 10 100 1000. (parentheses) [brackets] {braces}
def forward(self, x): return self.w2(F.silu(self.w1(x)) * self.w3(x))
system user assistant human bot img box ref quad unk context end start text
回答问题。描述这张图片。图片里有什么？一个红色的圆在绿色的田野上。你好，世界！中文测试。
Où est la bibliothèque? Größe, Übung, naïve façade. Привет, мир. こんにちは世界。
""".strip().split("\n")


def train(name, **options):
    lines = CORPUS * 8
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe",
        character_coverage=0.995, num_threads=1, minloglevel=2, **options)
    with open(os.path.join(HERE, name + ".model"), "wb") as file:
        file.write(model.getvalue())


def train_all():
    # As Llama's tokenizer is made.
    train("prefix", vocab_size=520, byte_fallback=True, split_digits=True,
          normalization_rule_name="identity", remove_extra_whitespaces=False,
          allow_whitespace_only_pieces=True)
    # No dummy prefix, and ChatML's markers among the pieces.
    train("no_prefix", vocab_size=520, byte_fallback=True, add_dummy_prefix=False,
          normalization_rule_name="identity", remove_extra_whitespaces=False,
          unk_piece="<unk>", bos_piece="<|startoftext|>", eos_piece="<|endoftext|>",
          user_defined_symbols=["<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>",
                                "<|im_end|>", "<|im_sep|>", "<img>", "</img>"])
    # No bytes to fall back to, spaces removed, characters rewritten.
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for wide in range(0xFF01, 0xFF5F):
            rules.write(f"{wide:X}\t{wide - 0xFEE0:X}\n")
        rules.write("3000\t20\nA0\t20\n65 301\tE9\nFB03\t66 66 69\n")
        rules.flush()
        train("no_bytes", vocab_size=420, byte_fallback=False,
              normalization_rule_tsv=rules.name, control_symbols=["<ctl>"])


def added(content, special=True, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, "special": special, **flags}


IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>",
                "<box>", "</box>"]


def chat(first, present=(), legacy=True, **options):
    decoder = {"0": added("<unk>"), "1": added("<s>"), "2": added("</s>")}
    next_id = first
    for token in IMAGE_TOKENS:
        if token in present:
            decoder[str(present[token])] = added(token)
        else:
            decoder[str(next_id)] = added(token)
            next_id += 1
    return {
        "add_bos_token": False, "add_eos_token": False, "added_tokens_decoder": decoder,
        "additional_special_tokens": IMAGE_TOKENS, "bos_token": "<s>", "eos_token": "</s>",
        "pad_token": "<unk>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False,
        "legacy": legacy, "tokenizer_class": "LlamaTokenizer", "sp_model_kwargs": {}, **options,
    }


def yi(legacy):
    sp = sentencepiece.SentencePieceProcessor(os.path.join(HERE, "no_prefix.model"))
    present = {token: sp.piece_to_id(token) for token in ["<img>", "</img>"]}
    config = chat(520, present, legacy, bos_token="<|startoftext|>", eos_token="<|im_end|>")
    decoder = config["added_tokens_decoder"]
    for token in ["<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]:
        decoder[str(sp.piece_to_id(token))] = added(token)
    return config


def flags(legacy):
    config = chat(520, legacy=legacy, add_bos_token=True)
    decoder = config["added_tokens_decoder"]
    for offset, token in enumerate([
            added("<left>", lstrip=True), added("<right>", rstrip=True),
            added("<both>", False, lstrip=True, rstrip=True),
            added("word", False, single_word=True), added("plain", False),
            added("plainer", False), added("<mask>", lstrip=True)]):
        decoder[str(529 + offset)] = token
    config["mask_token"] = "<mask>"
    config["additional_special_tokens"] = IMAGE_TOKENS + ["<left>", "<new>"]
    return config


OLD_MAP = {
    "bos_token": {"content": "<s>", "lstrip": False, "normalized": True, "rstrip": False,
                  "single_word": False},
    "eos_token": {"content": "</s>", "lstrip": False, "normalized": True, "rstrip": True,
                  "single_word": False},
    "unk_token": {"content": "<unk>", "lstrip": False, "normalized": True, "rstrip": False,
                  "single_word": False},
    "pad_token": "<pad>", "additional_special_tokens": ["<img>", "</img>"],
}


def variants():
    yield "prefix, legacy", "prefix", {"tokenizer_config.json": chat(520)}
    yield "prefix, not legacy", "prefix", {"tokenizer_config.json": chat(520, legacy=False)}
    yield "no prefix, legacy", "no_prefix", {"tokenizer_config.json": yi(True)}
    yield "no prefix, not legacy", "no_prefix", {"tokenizer_config.json": yi(False)}
    yield "no bytes, legacy", "no_bytes", {"tokenizer_config.json": chat(
        420, add_bos_token=True, add_eos_token=True)}
    yield "no bytes, not legacy", "no_bytes", {"tokenizer_config.json": chat(420, legacy=False)}
    yield "flags, legacy", "prefix", {"tokenizer_config.json": flags(True)}
    yield "flags, not legacy", "prefix", {"tokenizer_config.json": flags(False)}
    yield "files of old", "prefix", {
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True},
        "special_tokens_map.json": OLD_MAP,
        "added_tokens.json": {"<img>": 520, "</img>": 521, "<extra>": 522}}
    yield "split special tokens", "prefix", {"tokenizer_config.json": chat(
        520, split_special_tokens=True)}
    yield "model alone", "prefix", {}
    yield "v12-tiny", "../golden/v12-tiny/checkpoint/tokenizer", {
        name: json.load(open(os.path.join(HERE, "../golden/v12-tiny/checkpoint", name)))
        for name in ["tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"]}


CHAT = ("<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<img><IMG_CONTEXT>"
        "<IMG_CONTEXT></img>\nWhat is in the picture?<|im_end|><|im_start|>assistant\n")

STRINGS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\r\n", "a", " a", "a ", " a ", "  a  b  ",
    "Hello, world!", "The quick brown fox jumps over the lazy dog.", "Answer the questions.",
    "hello\tworld\n\nnew  line\n", "x" * 40, "1234567890", "3.14159 2,718", "a\u00a0b\u3000c",
    "你好，世界！", "描述这张图片。", "図 龘 䨻", "Größe naïve façade", "e\u0301 é", "o\u0302\u0323",
    "🙂", "👩‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "a🙂b", " 🙂 ", "\u200b\u200d\ufeff", "\u0000a\u0000", "\x7f\x1b[0m",
    "ＦＵＬＬ　ｗｉｄｔｈ ﬃ", "▁", "▁▁", "a▁b", "▁a", " ▁ a", "<0x41>", "<unk>", "a<unk>b", "<s>", "</s>",
    "<s> a</s> b", "<s>a</s>b", "<|im_start|>", "<|im_end|>x", "x <|im_end|> y", "<|endoftext|>",
    "<|startoftext|>a", "<|im_sep|>", "<|Human|>hi", "<ctl>", "a<ctl>b", CHAT,
    "<img>", "<img></img>", "<IMG_CONTEXT>" * 5, "<img> a </img> b", " <img>", "<img> ", "  <img>  ",
    "<img>\na", "a\n<img>", "<ref>dog</ref><box>[[1, 2, 3, 4]]</box>", "<ref> dog </ref>  <box>",
    "<IMG_CONTEXT", "IMG_CONTEXT>", "<<img>>", "<img<img>>", "</img", "<im", "<quad></quad>.",
    " <human>: What? <bot>: It is.</s><human>: And? <bot>:", "a <left> b", "a  <left>  b",
    "a <right> b", "a  <right>\n b", " <both> ", "a \u2003<both>\u3000\n b", "<left><right>",
    "<right><left>", "<right> <left>", "word", "a word b", "aword", "worda", "a wordb", "word word",
    "wordword", "word.", "plain", "plainer", "plainest", "aplainb", "plain plainer plainest",
    "<mask>", "a <mask> b", "<new>", "a <new>b", "<extra>", "a <extra> b", "</s>  a", "<pad>",
    "\u2581\u2581<img>\u2581", "a<img>\u00a0", "The picture </img>The picture", "ab\u0301<img>\u0301c",
    "中<IMG_CONTEXT>文", "if (a<b && c>d) { return \"<img src='x'>\"; }", "κόσμε", "ﷺ", "𝔘𝔫𝔦",
    "a" * 300, "   leading", "trailing   ", "mid   dle", "\n\n\nx\n\n\n",
]

ALPHABET = list("abcdeT .,\n\t  ▁") + ["é", "e\u0301", "中", "图片", "🙂", "龘", "<img>", "</img>",
            "<IMG_CONTEXT>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<ref>", "word",
            "plain", "<left>", "<right>", "<both>", "<mask>", "the", "ing", "<", ">", "\u00a0"]


def random_strings(count):
    draw = random.Random(7)
    for _ in range(count):
        yield "".join(draw.choice(ALPHABET) for _ in range(draw.randrange(1, 14)))


# [text, repetitions]
LONG = [["The quick brown fox. ", 500], ["描述🙂<img> ", 700], ["x", 10000], [" ", 3000],
        ["<IMG_CONTEXT>", 1280], [CHAT, 40]]


def digest(ids):
    """64-bit FNV-1a of the ids' decimal text."""
    value = 0xCBF29CE484222325
    for byte in " ".join(map(str, ids)).encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:x}"


def sequences(tokenizer, draw):
    ids = sorted({*range(tokenizer.vocab_size), *tokenizer.added_tokens_decoder})
    bytes_ = [i for i in range(tokenizer.vocab_size) if tokenizer.sp_model.is_byte(i)] or ids
    added_ = sorted(tokenizer.added_tokens_decoder)
    spaced = [i for i in range(tokenizer.vocab_size)
              if tokenizer.sp_model.id_to_piece(i).startswith("▁")]
    for token in added_[:12]:
        yield [token]
    for _ in range(60):
        pools = [ids, ids, bytes_, added_, spaced]
        yield [draw.choice(draw.choice(pools)) for _ in range(draw.randrange(1, 16))]
    if bytes_ is not ids:
        first = bytes_[0]
        for text in ["é", "中", "🙂", "a中"]:
            raw = text.encode()
            for end in range(1, len(raw) + 1):
                yield [first + b for b in raw[:end]]
                yield [first + b for b in raw[:end]] + [spaced[0], first + 0x41]
            yield [first + b for b in raw[1:]] + [first + b for b in raw]
        for raw in [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82A",
                    b"\xf0\x9f\x99", b"\xf8\x88\x80\x80\x80", b"\x20\x20", b"\xe2\x96\x81x"]:
            yield [first + b for b in raw]
            yield [spaced[1]] + [first + b for b in raw] + [spaced[1]]


def decodes(tokenizer, ids):
    return [tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            for skip in (True, False)]


def main():
    train_all()
    strings = list(dict.fromkeys(STRINGS + list(random_strings(120))))
    cases = {"strings": strings, "long": LONG, "variants": []}
    for name, model, files in variants():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(HERE, model + ".model"), f"{folder}/tokenizer.model")
            for file, value in files.items():
                with open(f"{folder}/{file}", "w") as handle:
                    json.dump(value, handle)
            tokenizer = LlamaTokenizer.from_pretrained(folder)
            tokens = tokenizer.get_vocab()
            encoded = [tokenizer.encode(text) for text in strings]
            draw = random.Random(11)
            runs = list(sequences(tokenizer, draw))
            cases["variants"].append({
                "name": name, "model": model,
                "files": {file: json.dumps(value) for file, value in files.items()},
                "vocabulary": max(tokens.values()) + 1,
                "special": sorted(set(tokenizer.all_special_ids)),
                "ids": encoded,
                "texts": [decodes(tokenizer, ids) for ids in encoded],
                "long": [digest(tokenizer.encode(text * n)) for text, n in LONG],
                "sequences": [[ids, *decodes(tokenizer, ids)] for ids in runs],
            })
    with open(os.path.join(HERE, "cases.json"), "w") as file:
        json.dump(cases, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
