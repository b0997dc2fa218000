"""Between big_vision npz, Hugging Face folders and Orbax checkpoints, either way.

  paligemma convert paligemma-3b-pt-224.npz pt_224/ --tokenizer tokenizer.model
  paligemma convert runs/mine mine.npz --dtype bfloat16
  paligemma convert pt_448.npz mine.npz --set final_logits_softcap=30 --set resize=bicubic
  paligemma convert pt_224.npz pt_224_nf4/ --quant nf4 --dtype bfloat16
  paligemma convert runs/lora birds/ --to peft
  paligemma convert pt_224/ merged/ --adapter birds/

DST ending in .npz means big_vision; a folder means Hugging Face unless --to says otherwise. One
slice of a tensor is in memory at a time, and DST appears when it is complete. --set says what the
shapes cannot tell; it is stored in DST and used when that is opened. --quant writes a folder that
transformers opens with bitsandbytes; SRC may be one. An adapter, of --adapter or of a run of recipe lora
or qlora, is merged, or written alone for peft (--to peft).
"""

import argparse
import sys

from paligemma_jax import errors

_ALPHA_NOTES = {  # of a folder for transformers, by the processor's `alpha`
  "drop": "alpha of transparent pictures is dropped here and in transformers 4, but transformers 5"
  " lays such pictures on white; save them without alpha where both must agree",
  "white": "transparent pictures are laid on white here and in transformers 5, but transformers 4"
  " drops their alpha; save them without alpha where both must agree",
}


# Those of `checkpoint.adapt`, which is slow to import.
_SETTINGS = (
  "attn_logits_softcap, final_logits_softcap, sliding_window, query_pre_attn_norm, resize,"
)
_SETTINGS += " alpha, res"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  parser.add_argument("src", metavar="SRC", help="a checkpoint of any format, or a workdir")
  parser.add_argument("dst", metavar="DST", help="NAME.npz, or a folder that does not exist yet")
  parser.add_argument("--to", choices=("npz", "hf", "orbax", "peft"))
  parser.add_argument(
    "--adapter", metavar="DIR", help="a PEFT folder, or a run that trained adapters, of SRC"
  )
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16", "float16"), help="default: as stored"
  )
  parser.add_argument(
    "--quant",
    metavar="KIND",
    help="quantise all matrices but the table for bitsandbytes: int8, nf4, nf4-dq (scales in 8 bits"
    " too), fp4, fp4-dq; default: floats",
  )
  parser.add_argument(
    "--set",
    metavar="KEY=VALUE",
    action="append",
    default=[],
    help="a setting of the model or its preprocessing (any number of times): " + _SETTINGS,
  )
  parser.add_argument(
    "--tokenizer", metavar="FILE|DIR", help="default: beside SRC, else $PALIGEMMA_TOKENIZER"
  )


def run(args: argparse.Namespace) -> None:
  """Converts."""
  import ml_dtypes  # noqa: F401 - numpy learns "bfloat16"
  import numpy as np

  from paligemma_jax.checkpoint import adapt, adapted, formats
  from paligemma_jax.processing import hub_files

  model, preprocessing = adapt.settings(adapt.parse(args.set))
  source = formats.open(args.src)
  if source.config is None:
    raise errors.UserError(f"{args.src} holds a part of a model; a whole one is needed here")
  if args.adapter:
    source = adapted.with_adapter(source, args.adapter)
  if args.to == "peft":
    _write_adapter(args, source)
    return
  if source.adapter is not None:
    source = adapted.merged(source, args.dtype and np.dtype(args.dtype))
  source = adapt.changed(source, model)
  processor = _processor(source, args.tokenizer, preprocessing)
  source.assets.pop(
    hub_files.PROCESSOR, None
  )  # what it says is written in the spelling of release 4
  assets = {**source.assets, **processor.to_files()}  # the mask codec goes along
  formats.convert(source, args.dst, to=args.to, dtype=args.dtype, assets=assets, quant=args.quant)
  print(f"{args.dst}: {source.config.name}")
  if args.to == "hf" or not (args.to or args.dst.endswith(".npz")):
    print(f"paligemma: {_ALPHA_NOTES[processor.alpha]}", file=sys.stderr)
  if processor.tokenizer is None:
    places = ", ".join(processor.looked_at)
    note = f"paligemma: no tokenizer went with it (looked at: {places}); give --tokenizer FILE|DIR"
    print(note, file=sys.stderr)


def _write_adapter(args, source) -> None:
  from paligemma_jax.checkpoint import adapted

  for option, value in (
    ("--quant", args.quant),
    ("--set", args.set),
    ("--tokenizer", args.tokenizer),
  ):
    if value:
      raise errors.UserError(f"--to peft writes an adapter alone; leave out {option}")
  adapted.save(source, args.dst, args.dtype)
  numbers = f"{len(source.adapter.lora.modules)} modules, {source.adapter.trained:,} numbers"
  print(f"{args.dst}: an adapter of {source.config.name}, {numbers}")


def _processor(source, tokenizer: str | None, preprocessing: dict[str, str]):
  """What reads pictures and prompts for the model; its files go with the weights."""
  from paligemma_jax.processing import processor

  made = processor.Processor.from_files(
    source.assets,
    res=source.config.img.res,
    num_image_tokens=source.config.img.num_tokens,
    tokenizer=tokenizer,
    place=source.path,
    **preprocessing,
  )
  if made.tokenizer:
    made.tokenizer.check_rows(source.config.llm.vocab_size)
  return made
