//! A plot of two quantities with logarithmic axes, as SVG.

use std::fmt::Write;

use super::table::number;

/// A line of the plot.
pub struct Series {
    /// What it shows.
    pub name: &'static str,
    /// Its colour, as CSS has them.
    pub colour: &'static str,
    /// Points; both numbers are above 0.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;

/// A logarithmic axis between two powers of ten (or of two).
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let (low, high) = (self.low.ln(), self.high.ln());
        self.from + (value.ln() - low) / (high - low) * (self.to - self.from)
    }
}

/// Draws `series`; `x_title` and `y_title` name the quantities.
pub fn draw(title: &str, x_title: &str, y_title: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0, f64::max);
    let x = Axis {
        low: least(&mut points().map(|point| point.0)),
        high: most(&mut points().map(|point| point.0)).max(2.0),
        from: LEFT,
        to: WIDTH - RIGHT,
    };
    let decade = |value: f64| 10f64.powf(value);
    let y = Axis {
        low: decade(least(&mut points().map(|point| point.1)).log10().floor()),
        high: decade(most(&mut points().map(|point| point.1)).log10().ceil()),
        from: HEIGHT - BOTTOM,
        to: TOP,
    };
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = svg.write_fmt(format_args!("{text}\n"));
    };
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    ));
    put(format_args!(
        "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>"
    ));
    put(format_args!(
        "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>"
    ));
    put(format_args!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x_title}</text>",
        (x.from + x.to) / 2.0,
        HEIGHT - 16.0
    ));
    put(format_args!(
        "<text x=\"{LEFT}\" y=\"{}\">{y_title}</text>",
        TOP - 10.0
    ));
    let mut mark = y.low;
    while mark <= y.high * 1.01 {
        let at = y.place(mark);
        put(format_args!(
            "<line x1=\"{}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            x.from, x.to
        ));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            x.from - 8.0,
            at + 4.0,
            number(mark)
        ));
        mark *= 10.0;
    }
    let mut marks: Vec<f64> = points().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x.place(mark),
            HEIGHT - BOTTOM + 18.0,
            number(mark)
        ));
    }
    for Series {
        name,
        colour,
        points,
    } in series
    {
        let place = |point: &(f64, f64)| (x.place(point.0), y.place(point.1));
        let path: Vec<String> = points
            .iter()
            .map(place)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        for (x, y) in points.iter().map(place) {
            put(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            ));
        }
        if let Some((x, y)) = points.last().map(place) {
            put(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
                x + 10.0,
                y + 4.0
            ));
        }
    }
    put(format_args!("</svg>"));
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_the_logarithm_puts_them() {
        let axis = Axis {
            low: 1.0,
            high: 100.0,
            from: 0.0,
            to: 200.0,
        };
        assert_eq!(axis.place(10.0).round(), 100.0);
        let svg = draw(
            "t",
            "x",
            "y",
            &[Series {
                name: "line",
                colour: "red",
                points: vec![(1.0, 20.0), (256.0, 3000.0)],
            }],
        );
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains(">10,000<") && svg.contains(">256<"));
    }
}
