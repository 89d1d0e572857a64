namespace LoKr.Core.Runtime;

/// <summary>Where to look for libtorch and what to accept.</summary>
/// <param name="Path">Folder with the libtorch libraries, or the <c>lib</c> folder of an installed PyTorch; null searches the usual places.</param>
/// <param name="AllowVersionMismatch">Accept a libtorch of another version than TorchSharp was built for.</param>
public sealed record RuntimeOptions(string? Path = null, bool AllowVersionMismatch = false);
