using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>What w1 ⊗ w2 of one module is multiplied with, and the numbers it comes from.</summary>
/// <param name="Rank">Rank that alpha is divided by; null where nothing gives one.</param>
/// <param name="Alpha">Alpha; null where nothing gives one.</param>
/// <param name="Convention">Convention that applies.</param>
/// <param name="Factor">The product; NaN where it is not known.</param>
internal sealed record ModuleScale(long? Rank, double? Alpha, ScalingConvention Convention, double Factor)
{
    /// <summary>Works it out by the conventions of the file's origin, or by what the reader says. Problems become findings.</summary>
    public static ModuleScale Of(AdapterFile file, AdapterFileModule module, FactorGeometry geometry, AdapterReadOptions options, List<LoKrAdapterFinding> findings)
    {
        // Alpha tensors beside a configuration of this library say the same in the terms of other programs.
        LoKrConfig? config = AdapterLayouts.HasAlphaTensors(file.Layout) || module.Alpha is not null ? null : file.ConfigOf(module.Component);
        bool isPeft = file.Layout is AdapterLayout.Peft or AdapterLayout.PeftInMemory;
        ScalingConvention convention = options.Scaling ?? config?.Scaling ?? (isPeft && module.Alpha is null ? ScalingConvention.Peft : ScalingConvention.Lycoris);
        int? configured = config is null ? null : ModulePatterns.Find(config.RankPattern, module.Name, config.R);
        long? rank = geometry.Rank ?? configured;
        double? alpha = options.Alpha ?? module.Alpha ?? (config is null ? null : ModulePatterns.Find(config.AlphaPattern, module.Name, config.Alpha));
        bool bothFull = geometry.Rank is null;
        if (configured is int given && geometry.Rank is long actual && given != actual)
        {
            Problem(ErrorIds.AdapterShapeMismatch, $"The configuration gives '{module}' rank {given}, but its factors have rank {actual}. Check that adapter_config.json belongs to the file.");
        }

        if (convention == ScalingConvention.None || (convention == ScalingConvention.Lycoris && bothFull))
        {
            return new(rank, alpha, convention, 1);
        }

        if (alpha is null)
        {
            // LyCORIS and ComfyUI take a missing alpha for the rank.
            if (!isPeft)
            {
                return new(rank, rank, convention, 1);
            }

            return Unknown("no adapter_config.json lies beside the file, and PEFT keeps alpha there", "Put it beside the file, or give alpha or the scaling convention.");
        }

        if (!double.IsFinite(alpha.Value))
        {
            Problem(ErrorIds.AlphaInvalid, $"The alpha of '{module}' is {alpha}. The file was stored in too narrow a type; give alpha, or the scaling convention None.");
            return new(rank, alpha, convention, double.NaN);
        }

        if (alpha == 0)
        {
            Problem(ErrorIds.AlphaInvalid, $"The alpha of '{module}' is 0, which LyCORIS takes for the rank and ComfyUI for no effect. Give alpha, or the scaling convention None.");
            return new(rank, alpha, convention, double.NaN);
        }

        if (rank is null)
        {
            return Unknown("both factors are full matrices, so that no tensor tells the rank", "Give the scaling convention Lycoris for a factor of 1.");
        }

        return new(rank, alpha, convention, alpha.Value / (config?.RsLora == true ? Math.Sqrt(rank.Value) : rank.Value));

        ModuleScale Unknown(string why, string advice)
        {
            Problem(ErrorIds.AdapterScaleUnknown, $"Nothing says what the factors of '{module}' are multiplied with: {why}. {advice}");
            return new(rank, alpha, convention, double.NaN);
        }

        void Problem(string id, string message) => findings.Add(new(LoKrFindingSeverity.Error, id, message, module.Name));
    }
}
