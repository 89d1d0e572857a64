using System.Globalization;
using LoKr.Core;
using LoKr.Core.Training;
using LoKr.Models.Imaging;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>Pictures that are made every so many steps of a training run, so that one sees what it learns.</summary>
/// <param name="Prompts">What they show.</param>
/// <param name="Every">Steps between them; the last step has them too.</param>
/// <param name="Folder">Folder that exists; files are named after step and prompt, <c>step-000100-1.png</c>.</param>
/// <param name="Options">How they are made; with a seed they differ by the training alone.</param>
public sealed record SamplePictures(IReadOnlyList<string> Prompts, int Every, string Folder, PictureOptions Options)
{
    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>, or what is wrong with the options of the pictures.</exception>
    public void Validate()
    {
        if (Every < 1)
        {
            throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
                string.Create(CultureInfo.InvariantCulture, $"SampleEvery is {Every}."), "It has to be at least 1.") { Target = nameof(Every) };
        }

        Options.Validate();
    }

    internal void MakeIfDue(StableDiffusionPipeline pipeline, LoKrTrainingStep step, CancellationToken cancellationToken)
    {
        if (step.Step % Every != 0 && step.Step != step.TotalSteps)
        {
            return;
        }

        bool held = pipeline.IsVaeLoaded;
        try
        {
            for (int i = 0; i < Prompts.Count; i++)
            {
                foreach (GeneratedPicture picture in PictureGenerator.Generate(pipeline, Prompts[i], Options, null, cancellationToken))
                {
                    using (picture)
                    {
                        string number = Options.Count == 1
                            ? string.Create(CultureInfo.InvariantCulture, $"{i + 1}")
                            : string.Create(CultureInfo.InvariantCulture, $"{i + 1}-{picture.Seed}");
                        PictureFile.WritePng(Path.Combine(Folder, string.Create(CultureInfo.InvariantCulture, $"step-{step.Step:D6}-{number}.png")), picture.Pixels);
                    }
                }
            }
        }
        finally
        {
            if (!held)
            {
                pipeline.ReleaseVae();
            }
        }
    }
}
