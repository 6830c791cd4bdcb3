"""Adapters trained as classifiers, on a language model's checkpoint: PEFT's folders."""

import json
import shutil

import classifiers as c
import numpy as np
import peft
import pytest
import torch
import transformers as hf
from families import build, tokenizer
from safetensors.torch import load_file, save_file

from iglens import Decoder, ModelLoadError, UnsupportedModelError, explain

IDS = [5, 17, 9, 40]

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Could not find a config file in:UserWarning",
)


def adapter(folder, labels):
    """LoRA and a head of its own beside a saved language model; the model in memory."""
    build("llama").save_pretrained(folder / "below")
    tokenizer().save_pretrained(folder / "below")
    below = hf.AutoModelForSequenceClassification.from_pretrained(
        folder / "below", num_labels=labels
    )
    torch.manual_seed(1)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["q_proj", "down_proj"]
    )
    model = peft.get_peft_model(below, config).eval()
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.3)
    model.save_pretrained(folder / "adapter")
    return model


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_an_adapter_trained_as_a_classifier_is_loaded_as_one(labels, tmp_path):
    model = adapter(tmp_path, labels)
    decoder = Decoder.from_pretrained(tmp_path / "adapter")
    assert len(decoder.labels.names) == labels
    result = explain(decoder, IDS, target=0, unit="logit")
    own = c.own_logits(model, IDS)
    np.testing.assert_allclose(result.final[0], own[0], atol=1e-5)
    in_memory = explain(Decoder(model), IDS, target=0, unit="logit")
    np.testing.assert_allclose(in_memory.levels, result.levels, atol=1e-5)


def test_an_adapter_without_its_head_is_refused(tmp_path):
    adapter(tmp_path, 2)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if "score" not in k}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"score.*would be random"):
        Decoder.from_pretrained(tmp_path / "adapter")


def test_an_adapter_trained_on_tokens_is_refused(tmp_path):
    adapter(tmp_path, 2)
    folder = shutil.copytree(tmp_path / "adapter", tmp_path / "tokens")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["task_type"] = "TOKEN_CLS"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="is a TokenClassification"):
        Decoder.from_pretrained(folder)
