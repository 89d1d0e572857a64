using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>One adapter's copy of a module that it trains whole: parameters in the adapter's flat buffers, buffers beside them.</summary>
internal sealed class SavedModuleCopy(string moduleName, IReadOnlyDictionary<string, (FlatParameter Flat, int Index)> parameters, IReadOnlyDictionary<string, Tensor> buffers) : IDisposable
{
    public string ModuleName { get; } = moduleName;

    /// <summary>Local names of all tensors, parameters first.</summary>
    public IEnumerable<string> LocalNames => parameters.Keys.Concat(buffers.Keys);

    public bool IsParameter(string local) => parameters.ContainsKey(local);

    public Tensor Value(string local) => parameters.TryGetValue(local, out (FlatParameter Flat, int Index) place)
        ? place.Flat.Views[place.Index]
        : buffers[local];

    public Tensor Gradient(string local) => parameters[local].Flat.GradientViews[parameters[local].Index];

    public void Dispose()
    {
        foreach (Tensor buffer in buffers.Values)
        {
            buffer.Dispose();
        }
    }
}
