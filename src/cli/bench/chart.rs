//! Figures as bars in an SVG file.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::Outcome;

/// One chart: groups of bars over a logarithmic axis.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) groups: Vec<Group>,
}

/// What was measured, and each of its bars.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<(&'static str, f64)>,
}

const WIDTH: u32 = 1000;
/// Height of a bar, of the room between groups, and of a panel's title and axis.
const BAR: u32 = 18;
const GAP: u32 = 12;
const FRAME: u32 = 110;
const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(170, 170, 170), RGBColor(215, 190, 130), RGBColor(130, 190, 150)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the panels below each other.
pub(super) fn draw(path: &Path, panels: &[Panel]) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| format!("cannot draw {}: {error}", path.display());
    let heights: Vec<u32> = panels.iter().map(height).collect();
    let area = SVGBackend::new(path, (WIDTH, heights.iter().sum())).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut breaks = heights.iter().scan(0, |at, height| {
        *at += height;
        Some(*at)
    });
    let breaks: Vec<u32> = breaks.by_ref().take(panels.len().saturating_sub(1)).collect();
    let areas = area.split_by_breakpoints::<u32, u32, _, _>(&[] as &[u32], &breaks);
    for (panel, area) in panels.iter().zip(&areas) {
        draw_panel(panel, area).map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))?;
    Ok(())
}

fn height(panel: &Panel) -> u32 {
    let groups = panel.groups.iter().map(|group| group.bars.len() as u32 * BAR + GAP);
    FRAME + groups.sum::<u32>()
}

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let values = || panel.groups.iter().flat_map(|group| group.bars.iter().map(|bar| bar.1));
    let least = values().fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE);
    let most = values().fold(0.0, f64::max).max(least);
    let depth = i32::try_from(height(panel) - FRAME)?;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} ({})", panel.title, panel.unit), (FONT, 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(260)
        // Room for the first bar, and for the figure behind the longest.
        .build_cartesian_2d((least / 2.0..most * 3.0).log_scale(), depth..0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(8)
        .x_label_formatter(&|value| super::super::grouped(*value as u64))
        .draw()?;
    let mut at = GAP as i32 / 2;
    for group in &panel.groups {
        let middle = at + (group.bars.len() as u32 * BAR) as i32 / 2;
        let (x, y) = chart.backend_coord(&(least / 2.0, middle));
        let right = TextStyle::from((FONT, 14)).pos(text_anchor::right());
        area.draw_text(&group.name, &right, relative(area, (x - 8, y - 8)))?;
        for ((name, value), colour) in group.bars.iter().zip(COLOURS) {
            let corners = [(least / 2.0, at + 1), (*value, at + BAR as i32 - 1)];
            chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            let label = format!("{name}  {}", super::super::grouped(value.round() as u64));
            chart.draw_series([Text::new(format!(" {label}"), (*value, at + 3), (FONT, 12))])?;
            at += BAR as i32;
        }
        at += GAP as i32;
    }
    Ok(())
}

mod text_anchor {
    use plotters::style::text_anchor::{HPos, Pos, VPos};

    pub(super) fn right() -> Pos {
        Pos::new(HPos::Right, VPos::Top)
    }
}

/// A point of the whole drawing, within this part of it.
fn relative(area: &Area<'_>, (x, y): (i32, i32)) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}
