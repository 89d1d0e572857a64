namespace LoKr.Core.Adapters;

/// <summary>Trainable and total parameters, as PEFT's <c>print_trainable_parameters</c> counts them.</summary>
/// <param name="Trainable">Parameters that take gradients.</param>
/// <param name="Total">All parameters: base, adapters and the trained copies of saved modules.</param>
public sealed record ParameterCount(long Trainable, long Total)
{
    /// <summary>Share of trainable parameters in percent.</summary>
    public double TrainablePercent => Total == 0 ? 0 : 100.0 * Trainable / Total;

    /// <inheritdoc/>
    public override string ToString() => string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"trainable params: {Trainable:N0} || all params: {Total:N0} || trainable%: {TrainablePercent:F4}");
}
