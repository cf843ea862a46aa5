"""Metrics out of what a program writes, while it writes."""

import os
from pathlib import Path
from typing import Any

import pytest

from hpstudy.training.command_metrics import JsonLines, MetricsError, MetricsReader, Pattern, Tail

NUMBER = r"[-+]?[0-9.]+(?:e-?\d+)?|nan|inf"


class TestTail:
    def test_lines_come_when_they_are_complete(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        tail = Tail(path)
        assert list(tail.lines()) == []
        with path.open("w") as file:
            for text, lines in [("a\nb", ["a"]), ("c\n\r\n", ["bc"]), ("10%\r20%\rrest", ["10%", "20%"])]:
                file.write(text)
                file.flush()
                assert list(tail.lines()) == lines
        assert list(tail.lines(ended=True)) == ["rest"]
        assert list(tail.lines(ended=True)) == []

    def test_a_file_that_is_made_anew_or_cut_is_read_from_its_start(self, tmp_path: Path) -> None:
        path, other = tmp_path / "log", tmp_path / "other"
        path.write_text("one\ntwo\n")
        tail = Tail(path)
        assert list(tail.lines()) == ["one", "two"]
        path.write_text("1\n")
        assert list(tail.lines()) == ["1"]
        other.write_text("another\n")
        other.replace(path)
        assert list(tail.lines()) == ["another"]

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        """In another container it would point to what is no business of the program's."""
        (tmp_path / "secret").write_text("password\n")
        (tmp_path / "log").symlink_to("secret")
        assert list(Tail(tmp_path / "log").lines(ended=True)) == []
        os.mkfifo(tmp_path / "fifo")
        assert list(Tail(tmp_path / "fifo").lines(ended=True)) == []

    def test_a_line_without_end_does_not_fill_the_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_bytes(b"x" * 3_000_000 + b"\nend\n")
        long, end = Tail(path).lines()
        assert len(long) <= 1 << 20
        assert end == "end"


def read(reader: MetricsReader, *lines: str) -> list[tuple[int, dict[str, Any]]]:
    found = [reader.read(line) for line in lines]
    return [(each.step, dict(each.metrics)) for each in found if each is not None]


class TestJsonLines:
    def test_an_object_a_line_with_or_without_a_step(self) -> None:
        lines = ['{"step": 10, "loss": 0.5}', "  ", '{"loss": 0.25, "folds": [1, 2]}', '{"step": 12.0, "note": "x"}']
        assert read(JsonLines("m"), *lines) == [
            (10, {"loss": 0.5}),
            (2, {"loss": 0.25, "folds": [1, 2]}),
            (12, {"note": "x"}),
        ]

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ("loss=0.5", "m.jsonl, line 1 is no JSON"),
            ("{", "line 1 is no JSON (.*), and each line must be a whole object: '{'"),
            ("[0.5]", "must be an object of metrics by name, got '\\[0.5\\]'"),
            ('{"step": 0.5}', "the step must be a whole number from 0 to 2147483647, got 0.5"),
            ('{"step": true}', "the step must be a whole number"),
            ('{"step": -1}', "the step must be a whole number"),
            ('{"step": "x"}', "the step must be a whole number"),
            ('{"step": 2147483648}', "the step must be a whole number from 0 to 2147483647, got 2147483648"),
            (f'{{"step": 1{"0" * 400}}}', "the step must be a whole number"),
            (f'{{"loss": 1{"0" * 400}}}', "line 1: metric 'loss' is a whole number of 1329 bits, too large"),
            (f'{{"folds": [0.5, 1{"0" * 400}]}}', "metric 'folds' is a whole number of 1329 bits"),
        ],
    )
    def test_another_line_is_an_error_that_shows_it(self, line: str, complaint: str) -> None:
        with pytest.raises(MetricsError, match=complaint):
            JsonLines("m.jsonl").read(line)


class TestPattern:
    def test_groups_name_and_value_give_every_match_of_a_line(self) -> None:
        reader = Pattern(rf"(?P<name>\w+)=(?P<value>{NUMBER})")
        assert read(reader, "epoch 1: loss=0.5 accuracy=9e-1", "saving", "loss=-2") == [
            (1, {"loss": 0.5, "accuracy": 0.9}),
            (2, {"loss": -2.0}),
        ]

    def test_groups_named_like_metrics_with_a_step(self) -> None:
        reader = Pattern(rf"Epoch (?P<step>\d+).* loss (?P<loss>{NUMBER})(?: f1 (?P<f1>{NUMBER}))?")
        assert read(reader, "Epoch 4 of 9, loss 0.5", "Epoch 5 of 9, loss 0.4 f1 0.9") == [
            (4, {"loss": 0.5}),
            (5, {"loss": 0.4, "f1": 0.9}),
        ]

    def test_a_step_may_be_named_as_metrics_are(self) -> None:
        reader = Pattern(rf"(?P<name>\w+)=(?P<value>{NUMBER})")
        assert read(reader, "step=200 loss=0.5") == [(200, {"loss": 0.5})]
        with pytest.raises(MetricsError, match="the step must be a whole number"):
            reader.read("step=1.5 loss=0.5")

    def test_colours_are_no_part_of_a_line(self) -> None:
        reader = Pattern(rf"(?P<name>\w+)=(?P<value>{NUMBER})")
        assert read(reader, "\x1b[32mloss=0.25\x1b[0m \x1b[1;31mf1\x1b[0m=0.5") == [(1, {"loss": 0.25, "f1": 0.5})]

    def test_of_a_long_line_the_start_is_looked_at(self) -> None:
        """A word that no value follows is begun anew at each of its letters: 64 KiB of them take a minute."""
        reader = Pattern(rf"(?P<name>\w+)=(?P<value>{NUMBER})")
        line = "loss=0.25 " + "x" * 2**16
        assert read(reader, line, line + "=1") == [(1, {"loss": 0.25}), (2, {"loss": 0.25})]

    def test_what_is_no_number_is_an_error_that_shows_it(self) -> None:
        with pytest.raises(MetricsError, match="found 'high' for loss in output 'loss=high'"):
            Pattern(r"loss=(?P<loss>\w+)").read("loss=high")
