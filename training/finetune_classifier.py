"""The same table of labels, but the towers learn too: an example of transformers' own Trainer.

python -m training.finetune_classifier FOLDER labels.csv artist my-artists [--how lora|full|head] [--epochs 8]
"""

import argparse

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from modeling_pianobind import PianoBindForSequenceClassification, PianoBindProcessor, default_checkpoint

from .data.label_table import midi_classes
from .loop.linear_heads import class_figures

RATES = {"lora": 5e-4, "full": 5e-5, "head": 5e-3}


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.finetune_classifier")
    parser.add_argument("folder"), parser.add_argument("labels"), parser.add_argument("column")
    parser.add_argument("output"), parser.add_argument("--checkpoint", default=default_checkpoint())
    parser.add_argument("--how", choices=RATES, default="lora")
    parser.add_argument("--epochs", type=float, default=8), parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args(command_line)
    train, valid, names = midi_classes(given.folder, given.labels, given.column)  # no song on both sides
    processor = PianoBindProcessor.from_pretrained(given.checkpoint)
    model = PianoBindForSequenceClassification.from_pretrained(
        given.checkpoint, dtype=torch.float32, id2label=dict(enumerate(names)), classifier_pooling="attention",
        problem_type="single_label_classification",
    )  # fmt: skip
    model.requires_grad_(given.how == "full").classifier.requires_grad_(True)
    if given.how == "lora":
        adapter = LoraConfig(r=8, target_modules=r"midi_model\..*_proj", modules_to_save=["classifier"])
        model = get_peft_model(model, adapter)

    def collate(rows):
        paths, classes = zip(*rows, strict=True)
        return {**processor(midi=list(paths), return_tensors="pt"), "labels": torch.tensor(classes)}

    def loss(output, classes, num_items_in_batch=None):  # rare classes count as much as common ones
        return torch.nn.functional.cross_entropy(output["logits"], classes, weights.to(classes.device))

    counts = np.bincount([number for _, number in train], minlength=len(names))
    weights = torch.tensor(len(train) / len(names) / np.maximum(counts, 1), dtype=torch.float32)
    arguments = TrainingArguments(
        f"{given.output}-run", num_train_epochs=given.epochs, per_device_train_batch_size=given.batch,
        learning_rate=RATES[given.how], eval_strategy="epoch", remove_unused_columns=False, label_names=["labels"],
        report_to="none", save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, collate, train, valid, compute_loss_func=loss,
        compute_metrics=lambda evaluated: class_figures(evaluated.label_ids, evaluated.predictions.argmax(-1)),
    )  # fmt: skip
    trainer.train()
    print(trainer.evaluate())
    (model.merge_and_unload() if given.how == "lora" else model).save_pretrained(given.output)
    processor.save_pretrained(given.output)


if __name__ == "__main__":
    main()
