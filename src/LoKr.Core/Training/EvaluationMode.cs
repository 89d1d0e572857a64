using LoKr.Core.Adapters;

namespace LoKr.Core.Training;

/// <summary>Puts models into evaluation mode while it lasts; afterwards every module is in the mode it was in.</summary>
internal sealed class EvaluationMode : IDisposable
{
    private readonly ModuleModes[] _modes;

    public EvaluationMode(IEnumerable<LoKrModel> models)
    {
        LoKrModel[] all = [.. models];
        _modes = [.. all.Select(model => new ModuleModes(model.Module))];
        Array.ForEach(all, static model => model.Module.eval());
    }

    public void Dispose() => Array.ForEach(_modes, static modes => modes.Dispose());
}
