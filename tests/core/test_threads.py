"""What numbers were computed on."""

import platform

import torch

from zoo.core import threads


def test_the_machine_is_its_processor_and_the_threads_of_torch(tmp_path, monkeypatch):
    said = tmp_path / "cpuinfo"
    said.write_text("processor\t: 0\nmodel name\t: Made-up CPU @ 3 GHz \nprocessor\t: 1\n")
    monkeypatch.setattr(threads, "CPUINFO", said)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert threads.machine() == "Made-up CPU @ 3 GHz, 3 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    said.unlink()  # as on macOS
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert threads.machine() == "arm64, 1 thread"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert threads.machine() == "arm64, Some GPU, 1 thread"
