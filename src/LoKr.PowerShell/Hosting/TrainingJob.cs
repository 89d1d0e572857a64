using System.Collections;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Distributed;

namespace LoKr.PowerShell.Hosting;

/// <summary>A training in a job, which is a process of its own: there the model is imported, gets an adapter and is trained, as the parameters of one call say.</summary>
/// <param name="job">The job.</param>
internal sealed class TrainingJob(CommandJob job)
{
    private static readonly string[] s_ofImport = ["Task", "Label", "DType", "Device"];

    /// <summary>Starts the job.</summary>
    /// <param name="folder">Folder of the model.</param>
    /// <param name="config">Configuration of the adapter.</param>
    /// <param name="adapterName">Name of the adapter; null for the default.</param>
    /// <param name="seed">Seed of a new head and of the adapter; null for none.</param>
    public Job Start(string folder, LoKrConfig config, string? adapterName, long? seed)
    {
        Hashtable import = new() { ["LiteralPath"] = folder };
        Hashtable add = [];
        Hashtable train = job.Parameters("Path", "Config");
        foreach (string name in s_ofImport.Where(train.ContainsKey))
        {
            import[name] = train[name];
            train.Remove(name);
        }

        if (seed is not null)
        {
            (import["Seed"], add["Seed"]) = (seed, seed);
        }

        if (adapterName is not null)
        {
            add["Name"] = adapterName;
        }

        // The process of a job is none of those that a launcher started, but has their variables.
        if (!train.ContainsKey("Distributed"))
        {
            train["Distributed"] = nameof(DistributedMode.None);
        }

        return job.Start(
            """
            param($config, $import, $add, $train)
            $model = Import-LoKrModel @import
            $config | New-LoKrConfig | Add-LoKrAdapter -Model $model @add
            $model | Start-LoKrTraining @train
            $model.LastTraining
            """,
            config, import, add, train);
    }
}
