"""What a CPU needs before the peers run on it, done as their modules are imported: what pip installed is left as it is.

Each mend names why it is needed and what it was seen with. None changes what is computed, but for a line's end
after the last turn, which LLaMA-Factory and ms-swift write and score and the others do not: without it losses can be compared.
"""

import importlib.machinery
import sys

CPU = 'torch.device("cpu")'
_KEPT = []  # operator libraries live as long as they are referred to

# nemo-automodel 0.7.0 asks for the current CUDA device without asking whether there is one. The reshape: labels[:, 1:] became contiguous
# by the copy to the GPU only.
AUTOMODEL = [
    ('torch.device("cuda", torch.cuda.current_device())', CPU),
    ("device = torch.cuda.current_device()", f"device = {CPU}"),
    ('{"": torch.cuda.current_device()}', '{"": "cpu"}'),
    ("labels = labels.view(-1)", "labels = labels.reshape(-1)"),
]
REWRITTEN = {
    "nemo_automodel._transformers.auto_model": AUTOMODEL,
    "nemo_automodel._transformers.model_init": AUTOMODEL,
    "nemo_automodel.components.distributed.parallelizer": AUTOMODEL,
    "nemo_automodel.components.loss.masked_ce": AUTOMODEL,
}


def torchvision_operators(module):
    """torchvision 0.28, built for CUDA, declares fake versions of operators that its library, which can't be loaded, would define."""
    import torch

    if not module._has_ops():
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


def torchvision_files(module):
    """transformers 5 opens images given by path through torchvision's own decoder, which is in the same library; Pillow does it here."""
    import io

    import numpy
    import torch
    from PIL import Image, ImageOps

    def decode_image(source, mode=None, apply_exif_orientation=False):
        image = Image.open(io.BytesIO(source.numpy().tobytes()) if isinstance(source, torch.Tensor) else str(source))
        image = ImageOps.exif_transpose(image) if apply_exif_orientation else image
        return torch.from_numpy(numpy.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()

    module.decode_image = decode_image


def torchaudio_library(module):
    """torchaudio 2.11's library is built for CUDA too; it works without one, so it is told that there is none."""
    load = module._load_lib

    def quiet(name):
        try:
            return load(name)
        except OSError:
            return False

    module._load_lib = quiet


def swift_chat(module):
    """ms-swift 4.6 knows Qwen's image token by its number in the published vocabulary, and leaves images out under another one; and it
    scores a line's end as LLaMA-Factory does."""
    from swift.template.register import TEMPLATE_MAPPING

    TEMPLATE_MAPPING["qwen2_5_vl"].suffix = ["<|im_end|>"]
    for template in (module.Qwen2VLTemplate, module.Qwen2_5VLTemplate):
        template.image_token_id, template.video_token_id = 12, 13


def llamafactory_turns(module):
    """LLaMA-Factory 0.9.5 writes a line's end after the last answer and scores it."""
    turn = module.TEMPLATES["qwen2_vl"].format_assistant
    turn.slots = [slot.removesuffix("\n") if isinstance(slot, str) else slot for slot in turn.slots]


AFTER = {
    "llamafactory.data.template": llamafactory_turns,
    "torchvision.extension": torchvision_operators,
    "torchvision.io.image": torchvision_files,
    "torchaudio._extension.utils": torchaudio_library,
    "swift.template.templates.qwen": swift_chat,
}


class Rewriting(importlib.machinery.SourceFileLoader):
    """Compiles a module from its source with some lines changed; no bytecode is kept."""

    def __init__(self, name, path, changes):
        super().__init__(name, path)
        self.changes = changes

    def get_code(self, fullname):
        """The changed module's code."""
        text = self.get_data(self.path).decode("utf-8")
        for old, new in self.changes:
            text = text.replace(old, new)
        return compile(text, self.path, "exec", dont_inherit=True)


class Finder:
    """Runs a function on a module that was just imported, or imports it from changed source."""

    def __init__(self, after, rewritten):
        self.after, self.rewritten = after, rewritten

    def find_spec(self, name, path=None, target=None):
        """The module's own spec, with another loader."""
        if name not in self.after and name not in self.rewritten:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        if name in self.rewritten:
            spec.loader = Rewriting(name, spec.origin, self.rewritten[name])
        if name in self.after:
            run, then = spec.loader.exec_module, self.after[name]

            def exec_module(module):
                run(module)
                then(module)

            spec.loader.exec_module = exec_module
        return spec


def install(more):
    """Watch imports from now on; `more`: name -> function called with the module once it is imported."""
    sys.meta_path.insert(0, Finder({**AFTER, **more}, REWRITTEN))
