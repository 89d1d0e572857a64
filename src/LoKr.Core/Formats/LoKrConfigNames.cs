using LoKr.Core.Adapters;

namespace LoKr.Core.Formats;

/// <summary>Names in files of the conventions that PEFT has no key for.</summary>
internal static class LoKrConfigNames
{
    public static readonly (string Name, FactorizationConvention Value)[] Factorization =
        [("peft", FactorizationConvention.Peft), ("lycoris", FactorizationConvention.Lycoris)];

    public static readonly (string Name, ScalingConvention Value)[] Scaling =
        [("peft", ScalingConvention.Peft), ("lycoris", ScalingConvention.Lycoris), ("none", ScalingConvention.None)];

    public static readonly (string Name, WeightDecomposeAxis Value)[] Axis =
        [("output", WeightDecomposeAxis.Output), ("input", WeightDecomposeAxis.Input)];

    public static readonly (string Name, Conv1dLayout Value)[] Conv1d =
        [("peft", Conv1dLayout.Peft), ("kronecker", Conv1dLayout.Kronecker)];

    public static string Of(Conv1dLayout value) => Conv1d.First(entry => entry.Value == value).Name;

    public static string Of(FactorizationConvention value) => Factorization.First(entry => entry.Value == value).Name;

    public static string Of(ScalingConvention value) => Scaling.First(entry => entry.Value == value).Name;

    public static string Of(WeightDecomposeAxis value) => Axis.First(entry => entry.Value == value).Name;
}
