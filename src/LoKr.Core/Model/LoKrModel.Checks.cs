using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    private string[] CheckName(string name)
    {
        if (string.IsNullOrWhiteSpace(name) || name.Contains('.', StringComparison.Ordinal) || name.AsSpan().IndexOfAny('/', '\\') >= 0)
        {
            throw new LoKrException(ErrorIds.AdapterNameInvalid, LoKrErrorKind.InvalidArgument, $"'{name}' cannot be the name of an adapter.",
                "A name is not empty and holds no dot or slash, because tensors and folders are named after it.")
            { Target = name };
        }

        if (_adapters.Exists(adapter => adapter.Name == name))
        {
            throw new LoKrException(ErrorIds.AdapterExists, LoKrErrorKind.AlreadyExists, $"An adapter '{name}' exists.", "Choose another name, or remove it with Remove-LoKrAdapter.") { Target = name };
        }

        return "lokr_".Contains(name, StringComparison.Ordinal)
            ? [$"The adapter name '{name}' is part of the prefix 'lokr_'; PEFT may reset such an adapter when it loads it."]
            : [];
    }

    /// <summary>A module must not be trained whole by one adapter while another adapter stands on a layer in it.</summary>
    private void CheckOverlap(TargetResolution resolution)
    {
        foreach (string saved in _saved.Keys)
        {
            if (resolution.Layers.FirstOrDefault(layer => IsWithin(layer.Name, saved)) is BaseLayer layer)
            {
                throw TargetErrors.SavedAndAdapted(saved, layer.Name);
            }
        }

        foreach ((string saved, _) in resolution.SavedModules)
        {
            if (_layers.Keys.FirstOrDefault(layer => IsWithin(layer, saved)) is string layer)
            {
                throw TargetErrors.SavedAndAdapted(saved, layer);
            }

            if (_saved.Keys.FirstOrDefault(other => other != saved && (IsWithin(other, saved) || IsWithin(saved, other))) is string nested)
            {
                throw new LoKrException(ErrorIds.SavedModuleConflict, LoKrErrorKind.InvalidArgument,
                    $"'{saved}' would be trained whole, but another adapter trains '{nested}'; one lies in the other.", "Give both adapters the same ModulesToSave.")
                { Target = saved };
            }
        }
    }

    /// <summary>Only one trained copy of a module can be in place at a time.</summary>
    private static void CheckSavedModules(IEnumerable<LoKrAdapter> adapters)
    {
        foreach (IGrouping<string, (string Module, LoKrAdapter Adapter)> group in adapters
            .SelectMany(static adapter => adapter.SavedModules.Select(module => (Module: module, Adapter: adapter)))
            .GroupBy(static entry => entry.Module))
        {
            if (group.Count() > 1)
            {
                throw new LoKrException(ErrorIds.SavedModuleConflict, LoKrErrorKind.InvalidOperation,
                    $"The adapters {string.Join(", ", group.Select(static entry => entry.Adapter.Name))} each have a trained copy of '{group.Key}', and only one can be in place.",
                    "Activate one of them at a time.")
                { Target = group.Key };
            }
        }
    }

    /// <summary>Training a copy of a module whose weight another module shares would change that one too.</summary>
    private void CheckNotTied(string name, nn.Module module)
    {
        HashSet<nint> own = [.. ModuleTree.Parameters(module).Select(static entry => entry.Parameter.Handle)];
        string? shared = ModuleTree.Modules(Module)
            .Where(entry => !IsWithin(entry.Name, name) && entry.Module.named_parameters(recurse: false).Any(parameter => own.Contains(parameter.parameter.Handle)))
            .Select(static entry => entry.Name)
            .FirstOrDefault() ?? TiedPartner(name);
        if (shared is not null)
        {
            throw new LoKrException(ErrorIds.TiedWeight, LoKrErrorKind.NotSupported,
                $"'{name}' cannot be trained whole, because it shares its weight with '{shared}'.", "Leave it out of ModulesToSave; adapt it with TargetModules instead.")
            { Target = name };
        }
    }

    /// <summary>The module that shares a weight with the parameters of a module, by the model's own account.</summary>
    private string? TiedPartner(string module)
    {
        foreach ((string duplicate, string saved) in Pretrained?.TiedParameters ?? new Dictionary<string, string>())
        {
            bool first = IsWithin(duplicate, module);
            bool second = IsWithin(saved, module);
            if (first != second)
            {
                string partner = first ? saved : duplicate;
                return partner[..Math.Max(partner.LastIndexOf('.'), 0)];
            }
        }

        return null;
    }

    private static bool IsWithin(string name, string module) => name == module || name.StartsWith(module + ".", StringComparison.Ordinal);
}
