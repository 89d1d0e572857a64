using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Models.Loading;
using TorchSharp;

namespace LoKr.Reliability;

/// <summary>Reads a destination through the library while others write it, and says which version it saw: the configuration and every tensor.</summary>
internal sealed class VersionReader
{
    private readonly Writer _writer;
    private readonly string _destination;
    private readonly string[] _versions;

    /// <summary>Loads what it needs, and reads both versions where nobody writes.</summary>
    public VersionReader(Writer writer, string root)
    {
        TorchRuntime.EnsureLoaded();
        (_writer, _destination) = (writer, Workplace.DestinationIn(root, writer));
        _versions = [.. Enumerable.Range(0, 2).Select(version => Digest(Path.Combine(root, $"expected{version}", Path.GetFileName(_destination))))];
    }

    /// <summary>Reads in a loop.</summary>
    /// <returns>Counts of both versions, and everything else that was seen.</returns>
    public string ReadFor(TimeSpan time)
    {
        int[] seen = new int[2];
        Dictionary<string, int> wrong = [];
        long start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < time)
        {
            try
            {
                int version = Array.IndexOf(_versions, Digest(_destination));
                if (version >= 0)
                {
                    seen[version]++;
                }
                else
                {
                    Count("a mixture");
                }
            }
            catch (LoKrException exception)
            {
                Count(exception.Message);
            }
        }

        return string.Create(CultureInfo.InvariantCulture, $"{seen[0]} and {seen[1]} reads, {wrong.Values.Sum()} wrong{string.Concat(wrong.Take(5).Select(static pair => $"; {pair.Value} times {pair.Key}"))}");

        void Count(string problem) => wrong[problem] = wrong.GetValueOrDefault(problem) + 1;
    }

    private string Digest(string path)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        switch (_writer.Name)
        {
            case "adapter folder":
                using (PeftAdapterFolder folder = PeftAdapterFolder.Read(path))
                {
                    hash.AppendData(Encoding.UTF8.GetBytes(LoKrConfigJson.Write(folder.Config)));
                    foreach (string name in folder.Tensors.Entries.Keys.Order(StringComparer.Ordinal))
                    {
                        hash.AppendData(folder.Tensors.Read(name).bytes);
                    }
                }

                break;
            case "adapter file":
                using (AdapterFile file = AdapterFile.Open(path))
                {
                    hash.AppendData(Encoding.UTF8.GetBytes(string.Join(';', file.Modules.Select(static module => module.ToString()))));
                    hash.AppendData(Encoding.UTF8.GetBytes(LoKrConfigJson.Write(file.ConfigOf(AdapterComponent.Model) ?? new LoKrConfig())));
                }

                break;
            default:
                using (LoKrModel model = ModelLoader.Load(path))
                {
                    hash.AppendData(Encoding.UTF8.GetBytes(model.Pretrained!.Config.ToJsonString()));
                    foreach ((string name, torch.Tensor tensor) in model.GetBaseState().OrderBy(static pair => pair.Key, StringComparer.Ordinal))
                    {
                        hash.AppendData(Encoding.UTF8.GetBytes(name));
                        hash.AppendData(tensor.contiguous().bytes);
                    }
                }

                break;
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }
}
