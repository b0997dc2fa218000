"""A model with tokens of one's own, made by transformers as users do: the same answer on both sides."""

import numpy as np
import pytest

import paligemma_jax as pg
from paligemma_jax.checkpoint import formats
from paligemma_jax.processing import processor as processor_lib
from tests import toy
from tests.checkpoint import toys

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

PROMPTS = ("caption en", "caption <s_ok> en", "<s_bad><sep> two  words", "a <s_ok>\n<sep>")


def answer(folder, picture) -> tuple[str, list[list[int]], int]:
  """Of transformers: three tokens, ids of `PROMPTS`, rows of the table."""
  model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder)
  processor = transformers.AutoProcessor.from_pretrained(folder)
  inputs = processor(text="<image>caption en", images=picture, return_tensors="pt")
  inputs.pop("labels", None)
  out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
  text = processor.decode(out[0][inputs["input_ids"].shape[1] :])
  ids = [processor.tokenizer(p, add_special_tokens=False)["input_ids"] for p in PROMPTS]
  return text, ids, len(model.get_input_embeddings().weight)


@pytest.mark.parametrize("multiple", [None, 64])
def test_added_tokens_are_answered_read_and_converted(tmp_path, multiple):
  ours = processor_lib.Processor(toy.tokenizer(), res=28, num_image_tokens=4, resize="bicubic")
  toys.write(tmp_path / "plain", assets=ours.to_files())
  picture = toy.pictures()[1]  # of the model's size: nothing is resized
  model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "plain")
  processor = transformers.AutoProcessor.from_pretrained(tmp_path / "plain")
  processor.tokenizer.add_tokens(["<s_ok>", "<s_bad>", "two  words"])
  processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<sep>"]})
  model.resize_token_embeddings(len(processor.tokenizer), pad_to_multiple_of=multiple)
  inputs = processor(text="<image>caption en", images=picture, return_tensors="pt")
  inputs.pop("labels", None)
  table = model.get_input_embeddings().weight
  with torch.no_grad():
    first = model(**inputs).logits[0, -1].argmax()
    table[processor.tokenizer.convert_tokens_to_ids("<s_ok>")] = table[first] * 3
  model.save_pretrained(tmp_path / "a")
  processor.save_pretrained(tmp_path / "a")

  wanted = answer(tmp_path / "a", picture)
  assert wanted[0] == "<s_ok>" * 3
  formats.convert(tmp_path / "a", tmp_path / "b.npz")
  formats.convert(
    tmp_path / "b.npz", tmp_path / "c", assets=pg.load(tmp_path / "b.npz").processor.to_files()
  )
  assert answer(tmp_path / "c", picture) == wanted
  for path in (tmp_path / "a", tmp_path / "b.npz", tmp_path / "c"):
    vlm = pg.load(path)
    assert [vlm.processor.tokenizer.encode(p) for p in PROMPTS] == wanted[1]
    np.testing.assert_array_equal(
      vlm.params["llm"]["embedder"]["input_embedding"], table.detach().numpy()
    )
    batch = vlm.processor(images=[picture], prompts=["caption en"])
    assert pg.generate(vlm, batch, max_new_tokens=3).text == [wanted[0]]
