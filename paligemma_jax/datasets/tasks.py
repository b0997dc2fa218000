"""The tasks that have a builder, by name."""

import importlib
import types

from paligemma_jax import errors

# Task, as transfers/ and the command line call it -> module of the builder, function that writes
# its miniature.
TASKS = {
  "vqav2": ("vqa", "vqa.vqav2"),
  "okvqa": ("okvqa", "vqa.okvqa"),
  "aokvqa": ("aokvqa", "vqa.aokvqa"),
  "textvqa": ("textvqa", "documents.textvqa"),
  "textcaps": ("text_caps", "documents.textcaps"),
  "vizwizvqa": ("vizwizvqa", "documents.vizwizvqa"),
  "tallyqa": ("tallyqa", "vqa.tallyqa"),
  "gqa": ("gqa", "vqa.gqa"),
  "docvqa": ("docvqa", "documents.docvqa"),
  "chartqa": ("chartqa", "documents.chartqa"),
  "science_qa": ("science_qa", "documents.science_qa"),
  "ai2d": ("ai2d", "documents.ai2d"),
  "refcoco_seg": ("ref_coco_bv", "coco_like.refcoco_seg"),
  "cococap": ("coco_captions", "coco_like.cococap"),
  "coco35l": ("coco35l", "captions.coco35l_files"),
  "nocaps": ("nocaps", "captions.nocaps"),
  "xm3600": ("xm3600", "captions.xm3600_files"),
  "xgqa": ("xgqa", "questions.xgqa_files"),
  "pope": ("pope", "questions.pope"),
  "countbenchqa": ("countbenchqa", "questions.countbenchqa"),
  "infovqa": ("infovqa", "questions.infovqa"),
  "stvqa": ("stvqa", "questions.stvqa"),
  "ocrvqa": ("ocrvqa", "questions.ocrvqa"),
  "rsvqa_lr": ("rsvqa_lr", "questions.rsvqa_lr"),
  "rsvqa_hr": ("rsvqa_hr", "questions.rsvqa_hr"),
  "scicap": ("scicap", "captions.scicap"),
  "screen2words": ("screen2_words", "captions.screen2words"),
  "widgetcap": ("widgetcap", "captions.widgetcap"),
  "nlvr2": ("nlvr2", "pairs.nlvr2"),
  "marvl": ("marvl", "pairs.marvl"),
  "mmvp": ("mmvp", "pairs.mmvp"),
  "msrvtt_cap": ("msrvtt", "videos.msrvtt"),
  "msrvtt_qa": ("msrvtt_qa", "videos.msrvtt_qa"),
  "msvd_qa": ("msvd_qa", "videos.msvd_qa"),
  "activitynet_cap": ("activitynet_captions_mr", "videos.activitynet_captions"),
  "activitynet_qa": ("activitynet_qa", "videos.activitynet_qa"),
  "vatex_cap": ("vatex", "videos.vatex"),
  "coco_detection": ("coco_detection", "coco_like.coco_detection"),
  "doclaynet_detection": ("doclaynet", "pages.doclaynet"),
  "docci": ("docci", "pages.docci"),
  "vsr": ("vsr", "pages.vsr"),
  "pubtabnet": ("pubtabnet", "pages.pubtabnet"),
  "fintabnet": ("fintabnet", "pages.fintabnet"),
  "icdar15": ("icdar15", "spotting.icdar15"),
  "total_text": ("total_text", "spotting.total_text"),
  "mlt17": ("mlt17", "spotting.mlt17"),
  "mlt19": ("mlt19", "spotting.mlt19"),
  "hiertext": ("hiertext", "spotting.hiertext"),
  "textocr": ("textocr", "spotting.textocr"),
  "intelocr": ("intelocr", "spotting.intelocr"),
  "music_score": ("grandstaff", "spotting.music_score"),
  "molecule": ("molecule", "spotting.molecule"),
  "mimic_cxr": ("mimic_cxr", "spotting.mimic_cxr"),
  "objaverse_multiview": ("objaverse", "spotting.objaverse"),
}


def module(task: str) -> types.ModuleType:
  """The builder of a task: its docstring says what it is, its TASK what is made of what.

  Args:
    task: its name in `TASKS`, or that of its builder.

  Raises:
    errors.UserError: no such task.
  """
  return importlib.import_module(f"paligemma_jax.datasets.{TASKS[_known(task)][0]}")


def sample(task: str):
  """The function folder -> None that writes the miniature of a task; errors as `module`."""
  name, _, function = TASKS[_known(task)][1].partition(".")
  return getattr(importlib.import_module(f"paligemma_jax.datasets.samples.{name}"), function)


def _known(task: str) -> str:
  by_builder = {builder: name for name, (builder, _) in TASKS.items()}
  found = task if task in TASKS else by_builder.get(task)
  if found is None:
    raise errors.UserError(f'task "{task}" is unknown{errors.did_you_mean(task, TASKS, 100)}')
  return found
