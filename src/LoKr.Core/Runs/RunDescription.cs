using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>Identity of a run: the hashes that a continuation compares, and the text of <c>config.json</c>.</summary>
internal sealed class RunDescription
{
    public RunDescription(IAdaptable target, IReadOnlyList<string> names, ITrainingTask task, ITrainingTask? validation, TrainingOptions training)
    {
        KeyValuePair<string, LoKrAdapter>[] adapters = [.. names.SelectMany(name => target.GetAdapters(name))];
        JsonObject adapterConfigs = [];
        foreach ((string component, LoKrAdapter adapter) in adapters)
        {
            adapterConfigs.Add(component.Length == 0 ? adapter.Name : $"{component}/{adapter.Name}", JsonNode.Parse(LoKrConfigJson.Write(adapter.Config)));
        }

        // The time a run may take, and the seed that a run without one draws, do not change its numbers.
        JsonObject config = new()
        {
            ["adapters"] = adapterConfigs,
            ["training"] = JsonNode.Parse(JsonRecords.ToLine(training with { TimeLimit = null, OnEvaluation = null })),
        };
        Json = JsonRecords.ToEscapedLines(config) + "\n";
        Inputs = new()
        {
            Data = task.DataHash,
            ValidationData = validation?.DataHash,
            BaseModel = ModelHash.OfBase(target.Models, adapters),
            ModelSettings = ModelHash.OfSettings(target.Models),
            Configuration = ContentHash.OfText(Json),
            StartAdapter = ModelHash.OfValues(adapters.SelectMany(static pair => pair.Value.FlatParameters)),
        };
    }

    /// <summary>The hashes.</summary>
    public RunInputs Inputs { get; }

    /// <summary>Configurations of the adapters and options of the training.</summary>
    public string Json { get; }
}
