using LoKr.Core.Model;
using LoKr.Testing;

namespace LoKr.PowerShell.Tests.Support;

/// <summary>Base of the tests: a runspace with the module, and a folder that holds a tiny model and its data.</summary>
public abstract class ModuleTest : IDisposable
{
    private LoKrModel? _model;

    protected ModuleTest()
    {
        Host.Set("root", Folder.Path);
    }

    protected ModuleHost Host { get; } = new();

    protected TempFolder Folder { get; } = new();

    /// <summary>Makes a BERT folder, imports it as <c>$model</c> with three labels, and makes <c>$train</c> and <c>$eval</c>.</summary>
    protected LoKrModel ImportBert()
    {
        Host.Set("path", TinyModel.WriteBert(Folder["bert"]));
        Host.Set("train", TinyModel.WriteTickets(Folder["train.jsonl"], 96));
        Host.Set("eval", TinyModel.WriteTickets(Folder["eval.jsonl"], 24, seed: 2));
        _model = Host.One<LoKrModel>("$model = Import-LoKrModel $path -Label network, access, billing -Seed 1 3>$null; $model");
        return _model;
    }

    /// <summary>The same with a LoKr adapter on it.</summary>
    protected LoKrModel ImportAdapted()
    {
        ImportBert();
        return Host.One<LoKrModel>("New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter $model -Seed 1");
    }

    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
        if (disposing)
        {
            _model?.Dispose();
            Host.Dispose();
            Folder.Dispose();
        }
    }
}
