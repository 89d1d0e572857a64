# The job of examples/nightly: what Invoke-LoKrJob does every night. Relative paths begin at this folder.
@{
    Base          = @{ Path = './model'; Device = 'cpu' }
    # Whatever lies there by the night: tickets of yesterday are added as files.
    Data          = @{ Path = './data/*.jsonl'; Validation = './eval.jsonl' }
    Configuration = @{ R = 8; Alpha = 16; TargetModules = 'all-linear' }
    Training      = @{ Epochs = 5; BatchSize = 16; LearningRate = 5e-3; WarmupRatio = 0.06; Seed = 1; KeepBest = $true }
    Runs          = @{ Path = './runs'; CheckpointEvery = 50 }
    # Better than what is in use, and not by chance.
    Gate          = @{ Metric = 'Accuracy'; MinimumImprovement = 0.01; Confidence = 0.95 }
    Registry      = @{ Path = './registry' }
    Retention     = @{ Versions = 5; Runs = 5 }
}
