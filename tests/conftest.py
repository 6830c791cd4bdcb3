"""What every test shares: no network, one thread, one embedded model."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports Transformers
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
import torch

# Before the type-check hook loads our modules: under the hook nothing finds its byte
# code, and compiling torchao anew warns of its escapes.
import transformers.modeling_utils  # noqa: F401

collect_ignore = ["second_device.py", "two_devices.py"]  # for a process of their own


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded():
    """The default model, fetched by `make test` beforehand."""
    import iglens

    return iglens.Decoder.from_pretrained("smollm2")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A tiny Llama with tokenizer and chat template, saved as a user would have it."""
    import families

    folder = tmp_path_factory.mktemp("tiny")
    families.build("llama").save_pretrained(folder)
    families.tokenizer(chat=True).save_pretrained(folder)
    return folder
