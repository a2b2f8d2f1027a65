"""The training loop: `accelerate launch -m training.train CONFIG.yaml [--resume | --dry-run]`.

Examples depend on their number alone, and a saved state holds all random states: on one process, a run that was
interrupted and resumed gives the same result, bit for bit, as an uninterrupted one.
"""

import argparse
import copy
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from .common.atomic_folder import atomic_folder
from .common.yaml_arguments import describe
from .data.arguments import TrainingArguments
from .data.sources import TrainingCorpus
from .loop.adapters import merged_state
from .loop.batches import BatchCollator
from .loop.optimization import lr_factor
from .loop.run import Run, make_accelerator
from .loop.run_folder import RunFolder, environment_of
from .loop.run_state import Progress, keep_with_state
from .loop.validation import embed_examples, plain_examples, retrieval_scores


class TrainingLoop:
    """The steps of a run, its log, its measurements and what it saves."""

    def __init__(self, run: Run):
        self.run, self.folder, self.progress = run, RunFolder(run.arguments.output), Progress()

    def train(self, resume: bool = False) -> None:
        """Trains all stages; `resume` continues from the newest state in the folder, if there is one."""
        run, arguments, accelerator = self.run, self.run.arguments, self.run.accelerator
        if accelerator.is_main_process:
            self.folder.start(arguments, resume, environment_of(accelerator))
        accelerator.wait_for_everyone()
        keep_with_state(accelerator, run.model, run.average, self.progress)
        if arguments.tracker:
            settings = {key: value for key, value in asdict(arguments).items() if isinstance(value, (int, float, str))}
            accelerator.init_trackers("trackers", settings)
        state, first_stage, first_step = (resume and self.folder.latest_state()) or (None, 0, 0)
        if resume and accelerator.is_main_process:
            self.folder.forget_after(first_stage, first_step)
        self.measured = self._measured_examples()
        for number in range(first_stage, len(arguments.stages)):
            self._train_stage(number, first_step, state)
            state, first_step = None, 0
        if self.measured and self.progress.measured_steps != self.progress.steps:
            # after the last step, so that a resumed run, which measures again, takes this line out of the log
            self._validate(number, arguments.stages[number].steps)
        self.save_checkpoint("checkpoint")
        accelerator.end_training()

    def _train_stage(self, number: int, first_step: int, state: Path | None) -> None:
        run, arguments, accelerator = self.run, self.run.arguments, self.run.accelerator
        stage = arguments.stages[number]
        loader, optimizer = run.loader(number, first_step), run.optimizer(stage)
        peaks = [group["lr"] for group in optimizer.param_groups]
        self.progress.stage_seconds = 0.0
        if state:
            accelerator.load_state(str(state))
        run.set_modes()
        started, saved = time.monotonic(), time.monotonic()
        before = self.progress.seconds, self.progress.stage_seconds
        bar = tqdm(
            loader, desc=f"stage {number + 1}", initial=first_step, total=stage.steps,
            disable=not accelerator.is_main_process,
        )  # fmt: skip
        for step, batch in enumerate(bar, first_step):
            progress = step / stage.steps
            if stage.minutes:
                progress = max(progress, self.progress.stage_seconds / (60 * stage.minutes))
            if progress >= 1:
                break
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * lr_factor(step, stage, progress)
            try:
                losses = run.gradients(batch, stage)
            except Exception as error:
                error.add_note(f"in step {step} of stage {number + 1}; rows: {', '.join(batch['id'])}")
                raise
            norm = accelerator.clip_grad_norm_(run.model.parameters(), arguments.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.average.update()
            self.progress.steps += 1
            passed = self._from_main(time.monotonic() - started)
            self.progress.seconds, self.progress.stage_seconds = before[0] + passed, before[1] + passed
            if step % arguments.log_steps == 0 or step == stage.steps - 1:
                line = {name: round(value.item(), 6) for name, value in losses.items()}
                bar.set_postfix(line)
                line |= {"gradient_norm": round(float(norm), 6)}
                line |= {"scale": round(run.model.model.logit_scale.weight.item(), 3)}
                self.log(number, step, line)
            if self.measured and self.progress.steps % arguments.validation_steps == 0:
                self._validate(number, step)
            if self._from_main(time.monotonic() - saved) >= 60 * arguments.save_minutes:
                self.save_checkpoint("checkpoint")
                self.folder.save_state(accelerator, number, step + 1)
                saved = time.monotonic()

    def _from_main(self, seconds: float) -> float:
        """The main process's clock, so that all processes save and stop at the same step."""
        if self.run.accelerator.num_processes == 1:
            return seconds
        value = torch.tensor([seconds], device=self.run.accelerator.device, dtype=torch.float64)
        torch.distributed.broadcast(value, src=0)
        return float(value)

    def log(self, number: int, step: int, values: dict) -> None:
        if self.run.accelerator.is_main_process:
            self.folder.log({"stage": number + 1, "step": step, "seconds": round(self.progress.seconds, 1)} | values)
        if self.run.arguments.tracker:
            self.run.accelerator.log(values, step=self.progress.steps)

    def _measured_examples(self) -> list[dict]:
        """The rows that are measured; none where the run measures nothing."""
        run, arguments = self.run, self.run.arguments
        if not arguments.validation_steps or not run.accelerator.is_main_process:
            return []
        corpus = TrainingCorpus.open(arguments.corpus, arguments.source_weights, arguments.validation_split)
        return plain_examples(run.sampler(arguments.stages[-1], corpus), corpus, arguments.validation_rows)

    def _validate(self, number: int, step: int) -> None:
        """Measures the averaged weights; the best so far are kept."""
        run = self.run
        collator = BatchCollator(processor=run.processor, vocabulary=run.corpus.vocabulary)
        run.model.eval()
        with run.average.applied(), run.accelerator.autocast():
            stage, device = run.arguments.stages[number], run.accelerator.device
            scores = retrieval_scores(embed_examples(run.model, self.measured, collator, stage, device), self.measured)
        run.set_modes()
        self.progress.measured_steps = self.progress.steps
        self.log(number, step, {f"validation {name}": value for name, value in scores.items()})
        if self.progress.best_score is None or scores["score"] > self.progress.best_score:
            self.progress.best_score = scores["score"]
            self.save_checkpoint("best")

    def save_checkpoint(self, name: str) -> None:
        """Writes the averaged weights: a checkpoint with the text adapter merged, or a PEFT adapter."""
        run = self.run
        if not run.accelerator.is_main_process:
            return
        with atomic_folder(self.folder.path / name) as partial, run.average.applied():
            if run.arguments.lora_rank:
                run.model.model.save_pretrained(partial)
            else:  # halves on disk, but float32 in memory unless a caller asks otherwise
                run.model.model.save_pretrained(partial, state_dict=merged_state(run.model.model))
            run.processor.save_pretrained(partial)


def train(arguments: TrainingArguments, resume: bool = False) -> None:
    """Trains by a run's arguments.

    Raises:
        ValueError: the arguments, the checkpoint or the corpus do not fit together; nothing was trained.
    """
    arguments = copy.deepcopy(arguments)
    TrainingLoop(Run(arguments, make_accelerator(arguments))).train(resume)


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=__doc__,
        epilog=f"Keys of CONFIG.yaml\n\n{describe(TrainingArguments)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="YAML file; its keys are below")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in the folder `output`")
    how.add_argument("--dry-run", action="store_true", help="print shapes, sizes and a time estimate; write nothing")
    options = parser.parse_args(command_line)
    try:
        arguments = TrainingArguments.from_yaml(options.config)
        if options.dry_run:
            from .loop.dry_run import dry_run

            print(dry_run(Run(arguments, make_accelerator(arguments))))
        else:
            train(arguments, options.resume)
    except (ValueError, OSError) as error:
        if getattr(error, "__notes__", None):  # a fault in a batch: the traceback tells where
            raise
        print(f"train: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())
        advice = "perhaps memory ran out: fewer `workers` need less. Go on with --resume."
        print(f"train: a process that makes batches is gone ({reason}); {advice}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
