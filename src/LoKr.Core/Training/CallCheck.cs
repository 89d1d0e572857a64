using LoKr.Core.Adapters;

namespace LoKr.Core.Training;

/// <summary>
/// Finds adapted layers that never run: their adapter would stay as it is, without a word.
/// That happens when a module is used through <c>forward</c> or its weights alone, where hooks do not fire.
/// </summary>
internal sealed class CallCheck(LoKrAdapter adapter)
{
    private readonly (LoKrLayer Layer, long Before)[] _layers = [.. adapter.Layers.Select(layer => (layer, layer.CallCount))];

    /// <summary>Throws when a layer has not run since this object was made.</summary>
    public void Require()
    {
        string[] silent = [.. _layers.Where(entry => entry.Layer.CallCount == entry.Before).Select(entry => entry.Layer.ModuleName)];
        if (silent.Length == 0)
        {
            return;
        }

        string named = string.Join(", ", silent.Take(10)) + (silent.Length > 10 ? ", …" : "");
        throw new LoKrException(
            ErrorIds.AdapterNotCalled,
            LoKrErrorKind.InvalidOperation,
            $"{silent.Length} of {_layers.Length} adapted layers did not run in the first step: {named}.",
            "Call modules with call(), not forward(), so that the adapter's hook runs; or leave layers out that the loss does not use (-ExcludeModules).")
        { Target = silent };
    }
}
