using LoKr.Models.Diffusion;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Testing;

/// <summary>Folders of small images with captions, drawn in milliseconds.</summary>
public static class TinyImages
{
    private static readonly (string Name, int[] Color)[] s_colors = [("red", [220, 40, 40]), ("green", [40, 200, 60]), ("blue", [50, 60, 220]), ("gray", [120, 120, 120])];

    /// <summary>Images of a colored square on a dark ground, each with a <c>.txt</c> beside it.</summary>
    /// <param name="folder">Where to.</param>
    /// <param name="count">How many.</param>
    /// <param name="sizes">Width and height of each in turn; 24 by 16 where none are given.</param>
    /// <returns>The folder.</returns>
    public static string Write(string folder, int count, params (int Width, int Height)[] sizes)
    {
        Directory.CreateDirectory(folder);
        for (int i = 0; i < count; i++)
        {
            using DisposeScope scope = NewDisposeScope();
            (string name, int[] color) = s_colors[i % s_colors.Length];
            (int width, int height) = sizes.Length == 0 ? (24, 16) : sizes[i % sizes.Length];
            Tensor image = full([height, width, 3], 20, ScalarType.Byte);
            for (int channel = 0; channel < 3; channel++)
            {
                image[(height / 4)..(height * 3 / 4), (width / 4)..(width * 3 / 4), channel] = color[channel] - i;
            }

            ImageFile.WritePng(Path.Combine(folder, $"{i:D2}-{name}.png"), image);
            File.WriteAllText(Path.Combine(folder, $"{i:D2}-{name}.txt"), $"a {name} rack\n");
        }

        return folder;
    }
}
