namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>The samplers that are built; the names are those of diffusers' classes without their ending.</summary>
public enum SchedulerKind
{
    /// <summary>DDIMScheduler: deterministic steps of the diffusion implicit model (Song et al., arXiv:2010.02502), eta 0.</summary>
    DDIM,

    /// <summary>PNDMScheduler: Runge-Kutta and linear multi-step of pseudo numerical methods (Liu et al., arXiv:2202.09778).</summary>
    PNDM,

    /// <summary>EulerDiscreteScheduler: first order steps in sigma space (Karras et al., arXiv:2206.00364), without churn.</summary>
    Euler,

    /// <summary>DDPMScheduler: ancestral sampling of the diffusion model (Ho et al., arXiv:2006.11239), with fresh noise in every step.</summary>
    DDPM,
}
