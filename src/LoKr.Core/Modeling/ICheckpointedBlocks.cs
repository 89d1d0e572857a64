namespace LoKr.Core.Modeling;

/// <summary>A module that runs blocks one after the other and can leave out what they keep for the backward pass.</summary>
public interface ICheckpointedBlocks
{
    /// <summary>Where blocks are run while gradient checkpointing is on; null otherwise.</summary>
    ActivationCheckpoints? Checkpoints { get; set; }
}
