"""The config of a run: its sections and keys, reading it from YAML and the command line, writing and comparing it."""

from seq2seq.config.file import load_config, load_saved_config, override_decode
from seq2seq.config.sections import (
    ConvolutionalConfig,
    DataConfig,
    DecodeConfig,
    ModelConfig,
    OptimConfig,
    RecurrentConfig,
    TextFiles,
    TokenizerConfig,
    TrainConfig,
)
from seq2seq.config.whole import (
    Config,
    check_files,
    chosen_before,
    diff_configs,
    dump_config,
    file_problem,
    portable,
    schema,
)

__all__ = [
    "Config",
    "ConvolutionalConfig",
    "DataConfig",
    "DecodeConfig",
    "ModelConfig",
    "OptimConfig",
    "RecurrentConfig",
    "TextFiles",
    "TokenizerConfig",
    "TrainConfig",
    "check_files",
    "chosen_before",
    "diff_configs",
    "dump_config",
    "file_problem",
    "load_config",
    "load_saved_config",
    "override_decode",
    "portable",
    "schema",
]
