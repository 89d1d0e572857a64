namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>Which of the training timesteps are visited (Lin et al., arXiv:2305.08891, table 2).</summary>
public enum TimestepSpacing
{
    /// <summary>Evenly from the first to the last one.</summary>
    Linspace,

    /// <summary>Multiples of a whole stride, counted from 0.</summary>
    Leading,

    /// <summary>Multiples of a stride, counted from the end.</summary>
    Trailing,
}
