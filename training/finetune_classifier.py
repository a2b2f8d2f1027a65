"""The same table of labels, but the towers learn too: an example of transformers' own Trainer.

python -m training.finetune_classifier FOLDER labels.csv artist my-artists [--how lora|full|head] [--epochs 8]
"""

import argparse

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.model_selection import GroupShuffleSplit
from transformers import Trainer, TrainingArguments

from modeling_pianobind import PianoBindForSequenceClassification, PianoBindProcessor, default_checkpoint
from modeling_pianobind.inputs_pianobind import list_files

from .data.label_table import as_classes, read_labels, without_rare
from .loop.linear_heads import class_figures


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.finetune_classifier")
    parser.add_argument("folder"), parser.add_argument("labels"), parser.add_argument("column")
    parser.add_argument("output"), parser.add_argument("--checkpoint", default=default_checkpoint())
    parser.add_argument("--how", choices=("lora", "full", "head"), default="lora")
    parser.add_argument("--epochs", type=float, default=8), parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args(command_line)
    files = [path for path in list_files(given.folder) if path.lower().endswith((".mid", ".midi"))]
    labels = without_rare(read_labels(given.labels, given.column, files, given.folder), given.labels)
    classes, names = as_classes(labels)
    processor = PianoBindProcessor.from_pretrained(given.checkpoint)
    model = PianoBindForSequenceClassification.from_pretrained(
        given.checkpoint, dtype=torch.float32, id2label=dict(enumerate(names)), classifier_pooling="attention",
        problem_type="single_label_classification",
    )  # fmt: skip
    model.requires_grad_(given.how == "full").classifier.requires_grad_(True)
    if given.how == "lora":
        layers = [name for name, layer in model.midi_model.named_modules() if isinstance(layer, torch.nn.Linear)]
        layers = [f"midi_model.{name}" for name in layers]
        model = get_peft_model(model, LoraConfig(r=8, target_modules=layers, modules_to_save=["classifier"]))

    pieces = [(files[place], int(label)) for place, label in zip(labels.pieces, classes, strict=True)]
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0)  # no song on both sides
    train, valid = ([pieces[row] for row in rows] for rows in next(split.split(pieces, groups=labels.songs)))
    weights = torch.tensor(len(classes) / len(names) / np.bincount(classes), dtype=torch.float32)

    def collate(rows):
        batch = processor(midi=[path for path, _ in rows], return_tensors="pt")
        return {**batch, "labels": torch.tensor([label for _, label in rows])}

    def loss(output, targets, num_items_in_batch=None):  # rare classes count as much as common ones
        return torch.nn.functional.cross_entropy(output["logits"], targets, weights.to(targets.device))

    arguments = TrainingArguments(
        f"{given.output}-run", num_train_epochs=given.epochs, per_device_train_batch_size=given.batch,
        learning_rate={"lora": 5e-4, "full": 5e-5, "head": 5e-3}[given.how], eval_strategy="epoch",
        remove_unused_columns=False, label_names=["labels"], report_to="none", save_strategy="no",
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
