using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>One thread for torch while it lasts: for tiny tensors several threads mostly wait for each other.</summary>
internal sealed class SingleThread : IDisposable
{
    private readonly int _before = get_num_threads();

    public SingleThread() => set_num_threads(1);

    public void Dispose() => set_num_threads(_before);
}
