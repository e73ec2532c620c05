//! The tables as bars, one panel a cell, on a logarithmic scale.

use std::path::Path;

use plotters::prelude::*;

use crate::job::{Kind, Result};
use crate::plan::{Cell, Line};
use crate::report::{title, value};

const COLUMNS: usize = 2;
const PANEL_WIDTH: u32 = 620;
const TITLE: i32 = 34;
const BAR: i32 = 20;
/// Where bars begin: names are to the left of it.
const LEFT: i32 = 200;
/// What is left for a figure at a bar's end.
const RIGHT: i32 = 90;

pub fn draw(cells: &[Cell], path: &Path) -> Result<()> {
    let rows: Vec<&[Cell]> = cells.chunks(COLUMNS).collect();
    let heights: Vec<i32> = rows.iter().map(|row| row.iter().map(height).max().unwrap_or(0)).collect();
    let size = (COLUMNS as u32 * PANEL_WIDTH, heights.iter().sum::<i32>().max(1) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE).map_err(drawing)?;
    let mut top = 0;
    for (row, height) in rows.iter().zip(&heights) {
        for (column, cell) in row.iter().enumerate() {
            let left = column as i32 * PANEL_WIDTH as i32;
            let panel = root.clone().shrink((left, top), (PANEL_WIDTH, *height as u32));
            bars(&panel, cell)?;
        }
        top += height;
    }
    root.present().map_err(drawing)
}

fn height(cell: &Cell) -> i32 {
    TITLE + BAR * measured(cell).len() as i32 + 16
}

fn measured(cell: &Cell) -> Vec<(&Line, f64)> {
    cell.lines.iter().filter_map(|line| Some((line, line.median()?))).collect()
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn bars(panel: &Panel<'_>, cell: &Cell) -> Result<()> {
    let lines = measured(cell);
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    let better = if cell.workload.is_time() { "shorter is better" } else { "longer is better" };
    let heading = format!("{} ({better})", title(cell));
    panel.draw(&Text::new(heading, (10, 10), text(13))).map_err(drawing)?;
    // A bar begins a little below the smallest figure: its length is the logarithm's.
    let low = lines.iter().map(|(_, value)| *value).fold(f64::MAX, f64::min) / 2.0;
    let high = lines.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let room = f64::from(PANEL_WIDTH as i32 - LEFT - RIGHT);
    for (n, (line, median)) in lines.iter().enumerate() {
        let top = TITLE + n as i32 * BAR;
        let length = (room * (median / low).ln() / (high / low).ln()) as i32;
        let colour = match line.kind {
            _ if !line.row.starts_with("ringbus") => RGBColor(150, 160, 175),
            Kind::Lent => RGBColor(80, 160, 90),
            _ => RGBColor(40, 110, 200),
        };
        let corners = [(LEFT, top + 2), (LEFT + length, top + BAR - 3)];
        panel.draw(&Rectangle::new(corners, colour.filled())).map_err(drawing)?;
        panel.draw(&Text::new(line.row, (14, top + 3), text(12))).map_err(drawing)?;
        let figure = value(cell, *median);
        panel.draw(&Text::new(figure, (LEFT + length + 6, top + 3), text(12))).map_err(drawing)?;
    }
    Ok(())
}

fn drawing(error: impl std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
    format!("the chart: {error}").into()
}
