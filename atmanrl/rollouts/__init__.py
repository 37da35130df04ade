"""Rollouts: sampling from the policy, splitting at the delimiter, and the batches that feed both LightningModules."""

from atmanrl.rollouts.batch import Rollout, RolloutBatch, Sequences
from atmanrl.rollouts.boxed import BoxedSplitter
from atmanrl.rollouts.datamodule import RolloutDataModule
from atmanrl.rollouts.sampler import Completion, Sampler, SamplingOptions
from atmanrl.rollouts.sampling import HFSampler, sample
from atmanrl.rollouts.sentences import SentenceSplitter
from atmanrl.rollouts.split import DelimiterSplitter, Parts, Place, Splitter, split
from atmanrl.rollouts.truncation import Truncation

__all__ = [
    "BoxedSplitter",
    "Completion",
    "DelimiterSplitter",
    "HFSampler",
    "Parts",
    "Place",
    "Rollout",
    "RolloutBatch",
    "RolloutDataModule",
    "Sampler",
    "SamplingOptions",
    "SentenceSplitter",
    "Sequences",
    "Splitter",
    "Truncation",
    "sample",
    "split",
]
