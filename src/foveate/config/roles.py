"""The roles that columns of a record play, and the names that such columns usually have."""

from __future__ import annotations

# The usual names of each role, lower case. A name may serve two roles (`text` of a picture or of a recording).
ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "images", "image_path", "image_file", "img", "picture", "file_name"),
    "audio": ("audio", "audios", "audio_path", "audio_filepath", "sound", "speech", "wav"),
    "video": ("video", "videos", "video_path", "clip"),
    "question": ("question", "query", "instruction", "prompt", "problem"),
    "answer": ("answer", "response", "output", "completion", "solution", "multiple_choice_answer"),
    "answers": ("answers",),
    "messages": ("messages", "conversations", "conversation", "dialog"),
    "caption": ("caption", "text", "description", "label_text"),
    "transcription": ("transcription", "sentence", "transcript", "text"),
    "system": ("system",),
    "tools": ("tools",),
    "input": ("input",),
    "history": ("history",),
    "choices": ("choices", "options"),
    "hint": ("hint", "context"),
    "ground_truth": ("ground_truth",),
    "objects": ("objects",),
    "bbox": ("bbox", "bboxes", "boxes"),
    "category": ("category", "categories", "label", "labels"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
}
