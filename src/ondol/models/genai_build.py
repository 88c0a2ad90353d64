"""Builds the OpenVINO graph of a GGUF file, in a process that ends with it.

Run by path: ``genai_build.py FILE.gguf`` leaves ``openvino_model.xml`` and ``.bin`` beside the file.
GenAI saves a graph only while it opens a pipeline, which needs the model's memory twice over.
"""

from __future__ import annotations

import sys


def main() -> None:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None forbids the import
    import openvino_genai

    config = openvino_genai.SchedulerConfig()
    config.num_kv_blocks = 2
    openvino_genai.ContinuousBatchingPipeline(
        sys.argv[1], config, "CPU", {"enable_save_ov_model": True}
    )


if __name__ == "__main__":
    main()
