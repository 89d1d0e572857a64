using TorchSharp;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>Changes of a norm's weight and bias (LyCORIS <c>train_norm</c>).</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the norm.</param>
/// <param name="IsDotted">Whether the name has its dots.</param>
/// <param name="Tensors">w_norm and b_norm, and an alpha where the file has one.</param>
internal sealed record AdapterNorm(AdapterComponent Component, string Name, bool IsDotted, IReadOnlyDictionary<string, torch.Tensor> Tensors);
