namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>What the network was trained to predict (<c>prediction_type</c>).</summary>
public enum PredictionType
{
    /// <summary>The noise that was added: <c>epsilon</c>.</summary>
    Epsilon,

    /// <summary>The velocity √ᾱ·noise − √(1−ᾱ)·sample (Salimans and Ho, arXiv:2202.00512): <c>v_prediction</c>.</summary>
    Velocity,
}
