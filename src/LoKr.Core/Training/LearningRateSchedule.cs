namespace LoKr.Core.Training;

/// <summary>How the learning rate goes on after the warm-up; the formulas are those of transformers' <c>get_*_schedule_with_warmup</c>.</summary>
public enum LearningRateSchedule
{
    /// <summary>Stays at the learning rate.</summary>
    Constant,

    /// <summary>Falls in a straight line to zero at the last step.</summary>
    Linear,

    /// <summary>Falls along half a cosine to zero at the last step.</summary>
    Cosine,
}
