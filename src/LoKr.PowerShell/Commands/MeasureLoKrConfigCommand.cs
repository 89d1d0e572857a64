using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Measures what configurations would cost on a model: modules, parameters, memory, multiply-adds. Nothing is built.</summary>
[Cmdlet(VerbsDiagnostic.Measure, "LoKrConfig", DefaultParameterSetName = "Model")]
[OutputType(typeof(LoKrConfigCost), typeof(LoKrModuleCost))]
public sealed class MeasureLoKrConfigCommand : LoKrCommand
{
    private (ModelSource Source, IAdaptable Model)? _opened;
    private int _count;

    /// <summary>The configurations, from New-LoKrConfig or Get-LoKrConfig; several are measured side by side.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Model")]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Config")]
    [ValidateNotNullOrEmpty]
    public LoKrConfig[] Config { get; set; } = [];

    /// <summary>The model or the pipeline: from Import-LoKrModel, any torch.nn.Module, or the folder of one, whose weights are not loaded.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = "Model")]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Config")]
    [Alias("Path")]
    [ModelSourceTransformation]
    [ValidateNotNull]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public ModelSource Model { get; set; } = null!;

    /// <summary>Tokens in a batch. The cheapest order in which a layer applies its factors depends on it.</summary>
    [Parameter]
    [ValidateRange(1, long.MaxValue)]
    public long TokenCount { get; set; } = 512;

    /// <summary>Writes one object for each module that is trained instead of one for each configuration.</summary>
    [Parameter]
    public SwitchParameter ByModule { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        EnsureRuntime();
        foreach (LoKrConfig config in Config)
        {
            int number = ++_count;
            ForOne(config, () =>
            {
                AdapterCost cost = AdapterCosts.Measure(Open(), config, TokenCount);
                WriteWarnings(cost.Warnings);
                if (ByModule)
                {
                    WriteObject(cost.Modules.Select(module => module with { Configuration = number }), enumerateCollection: true);
                }
                else
                {
                    WriteObject(cost.Total with { Configuration = number });
                }
            });
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Close();
        }

        base.Dispose(disposing);
    }

    /// <summary>The model; the shapes of a folder are read once for all configurations.</summary>
    private IAdaptable Open()
    {
        if (_opened is not { } opened || !ReferenceEquals(opened.Source, Model))
        {
            Close();
            _opened = opened = (Model, Model.Open(Paths));
        }

        return opened.Model;
    }

    private void Close()
    {
        if (_opened is { Source.IsFolder: true } opened)
        {
            opened.Model.Dispose();
        }

        _opened = null;
    }
}
