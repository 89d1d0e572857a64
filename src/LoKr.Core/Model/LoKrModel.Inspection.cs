using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    /// <summary>Every module of the model (without the root), in order, with shapes, counts and adapter state.</summary>
    public IReadOnlyList<LoKrModuleInfo> GetModules()
    {
        string[] active = [.. ActiveAdapters];
        string[] merged = [.. MergedAdapters];
        List<LoKrModuleInfo> modules = [];
        IReadOnlyList<(string Name, nn.Module Module, bool IsProjection)> places = ModuleTree.Places(Module);
        HashSet<string> names = [.. places.Select(static place => place.Name)];
        foreach ((string name, nn.Module module, bool isProjection) in places)
        {
            // The parameters of an attention's output projection are listed with that.
            const string projection = AttentionParameters.OutputName + ".";
            bool isAttention = module is TorchSharp.Modules.MultiheadAttention && names.Contains(ModuleTree.Join(name, AttentionParameters.OutputName));
            (string, TorchSharp.Modules.Parameter)[] own = [.. module.named_parameters(recurse: false)
                .Where(entry => !(isProjection || isAttention) || entry.name.StartsWith(projection, StringComparison.Ordinal) == isProjection)];
            string type = isProjection ? nameof(TorchSharp.Modules.Linear) : module.GetType().Name.Split('`')[0];
            modules.Add(Describe(name, type, own, isProjection || BaseLayer.TryCreate(name, module) is not null, active, merged));
        }

        return modules;
    }

    private LoKrModuleInfo Describe(string name, string type, (string Name, TorchSharp.Modules.Parameter Parameter)[] own, bool isSupported, string[] active, string[] merged)
    {
        TorchSharp.Modules.Parameter? weight = own.FirstOrDefault(static entry => entry.Name.Split('.')[^1] == "weight").Parameter ?? own.FirstOrDefault().Parameter;
        IReadOnlyList<(LoKrAdapter Adapter, LoKrLayer Layer)> layers = _layers.TryGetValue(name, out LayerHost? host) ? host.Layers : [];
        IReadOnlyList<(LoKrAdapter Adapter, LoKrNorm Norm)> norms = _norms.TryGetValue(name, out NormHost? normHost) ? normHost.Norms : [];
        string[] adapters = [.. layers.Select(static entry => entry.Adapter.Name), .. norms.Select(static entry => entry.Adapter.Name)];
        return new()
        {
            Name = name,
            ModuleType = type,
            Shape = weight?.shape ?? [],
            ParameterCount = own.Sum(static entry => entry.Parameter.numel()),
            DType = weight is null ? null : TorchNames.Of(weight.dtype),
            Device = weight is null ? null : TorchNames.Of(weight.device),
            IsSupported = isSupported,
            IsAdapted = adapters.Length > 0,
            Adapters = adapters,
            ActiveAdapters = [.. adapters.Intersect(active)],
            MergedAdapters = [.. adapters.Intersect(merged)],
            FactorShapes =
            [
                .. layers.Select(static entry => entry.Layer.Shapes.ToString()),
                .. norms.Select(static entry => string.Join(", ", entry.Norm.Shapes.Select(static tensor => $"{tensor.Suffix} {string.Join('×', tensor.Shape)}"))),
            ],
            AdapterParameterCount = layers.Sum(static entry => entry.Layer.Factors.ParameterCount) + norms.Sum(static entry => entry.Norm.Tensors.Sum(static tensor => tensor.Tensor.numel())),
            SavedBy = _saved.TryGetValue(name, out SavedModuleHost? saved) ? [.. saved.Adapters.Select(static adapter => adapter.Name)] : [],
        };
    }

    /// <summary>
    /// Trainable and total parameters as PEFT counts them: the total holds base, adapters and, beside their originals,
    /// the trained copies of saved modules; shared weights count once.
    /// </summary>
    public ParameterCount CountParameters()
    {
        IEnumerable<(string Name, TorchSharp.Modules.Parameter Parameter)> all = ModuleTree.Parameters(Module)
            .Where(entry => Pretrained?.TiedParameters.ContainsKey(entry.Name) != true);
        long total = 0;
        long trainable = 0;
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in all)
        {
            total += parameter.numel();

            // A saved module's own parameters stand for the adapter's copy, which is counted with the adapter.
            if (parameter.requires_grad && !_saved.Values.Any(host => IsWithin(name, host.Name)))
            {
                trainable += parameter.numel();
            }
        }

        foreach (LoKrAdapter adapter in _adapters)
        {
            total += adapter.ParameterCount;
            trainable += adapter.IsTrainable && _active.Contains(adapter) ? adapter.ParameterCount : 0;
        }

        return new(trainable, total);
    }

    /// <summary>
    /// Tensors of the merged or unadapted base model by published name, tied duplicates left out; not copies.
    /// A saved module gives its trained copy if its adapter is merged, and its original otherwise.
    /// </summary>
    public IReadOnlyDictionary<string, Tensor> GetBaseState()
    {
        Dictionary<string, Tensor> state = new(StringComparer.Ordinal);
        foreach ((string name, Tensor tensor) in ModuleTree.Parameters(Module)
            .Select(static entry => (entry.Name, (Tensor)entry.Parameter))
            .Concat(ModuleTree.Buffers(Module)))
        {
            if (Pretrained?.TiedParameters.ContainsKey(name) != true)
            {
                state.Add(name, BaseTensor(name, tensor));
            }
        }

        return state;
    }

    private Tensor BaseTensor(string name, Tensor tensor)
    {
        foreach (SavedModuleHost host in _saved.Values)
        {
            if (host.TryGetLocalName(name, out string local))
            {
                LoKrAdapter? merged = host.Adapters.FirstOrDefault(_merger.Merged.Contains);
                return merged is null ? host.Originals[local] : merged.Copies.First(copy => copy.ModuleName == host.Name).Value(local);
            }
        }

        return tensor;
    }
}
