namespace LoKr.Core.Training;

/// <summary>How rows are put into batches; the same values give the same batches.</summary>
/// <param name="BatchSize">Rows in a batch; the last one may have fewer.</param>
/// <param name="Shuffle">Whether the order is drawn from the seed and the epoch; otherwise rows keep their order, or go by length.</param>
/// <param name="Bucket">Whether rows of similar length share a batch.</param>
/// <param name="Seed">Seed of the order.</param>
/// <param name="Epoch">Number of the pass, from 0; each has its own order.</param>
public sealed record BatchOrder(int BatchSize, bool Shuffle = false, bool Bucket = true, long Seed = 0, int Epoch = 0);
