//! Which repetitions count. A host may have its virtual CPUs on one core now, a second later on two that share a cache, and
//! then on two that share none: a cache line takes 90, 150 or 540 ns there and back. What is held against each other is to
//! have been measured in one and the same place.

/// Times of a cache line that are further apart than this are of different places.
const ALIKE: f64 = 1.4;

/// Where each repetition was: what a cache line took there and back; `None` if that has changed within it.
#[derive(Default)]
pub(super) struct Places(Vec<Option<f64>>);

impl Places {
    /// One more repetition, in which the line took so long each time that somebody looked.
    pub(super) fn note(&mut self, lines: &[f64]) {
        let (least, most) = lines
            .iter()
            .fold((f64::INFINITY, 0_f64), |(least, most), line| (least.min(*line), most.max(*line)));
        self.0.push((most <= least * ALIKE).then_some((least + most) / 2.0));
    }

    /// The repetitions in the place where most were as a whole; all of them if none was.
    pub(super) fn commonest(&self) -> Kept {
        // From each time on upwards: no two of those that count are further apart, whatever lies between two places.
        let from = |least: &f64| {
            let there = |line: f64| (*least..=least * ALIKE).contains(&line);
            Kept(self.0.iter().map(|line| line.is_some_and(there)).collect())
        };
        let kept = self.0.iter().flatten().map(from);
        // Of those that are equally common, the first.
        kept.rev().max_by_key(Kept::count).unwrap_or_else(|| Kept(vec![true; self.0.len()]))
    }
}

/// Of each repetition, whether it counts.
pub(super) struct Kept(Vec<bool>);

impl Kept {
    fn count(&self) -> usize {
        self.0.iter().filter(|kept| **kept).count()
    }

    pub(super) fn left_out(&self) -> usize {
        self.0.len() - self.count()
    }

    /// Those that count, of what each repetition has measured; of nothing, nothing.
    pub(super) fn of<T>(&self, measured: Vec<T>) -> Vec<T> {
        let both = measured.into_iter().zip(&self.0);
        both.filter_map(|(measured, kept)| kept.then_some(measured)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(lines: &[&[f64]]) -> (Vec<usize>, usize) {
        let mut places = Places::default();
        lines.iter().for_each(|lines| places.note(lines));
        let kept = places.commonest();
        (kept.of((0..lines.len()).collect()), kept.left_out())
    }

    #[test]
    fn those_count_that_were_in_the_commonest_place_from_beginning_to_end() {
        let (near, far): (&[f64], &[f64]) = (&[150.0, 160.0, 170.0], &[530.0, 540.0]);
        assert_eq!(kept(&[near, far, near, &[150.0, 540.0, 150.0], near]), (vec![0, 2, 4], 2));
        assert_eq!(kept(&[far, near, far]), (vec![0, 2], 1));
        assert_eq!(kept(&[far, near]), (vec![0], 1), "the first of what is equally common");
        assert_eq!(kept(&[near, near]), (vec![0, 1], 0));
    }

    #[test]
    fn what_lies_between_two_places_does_not_make_them_one() {
        let lines = [90.0, 150.0, 115.0, 90.0, 150.0, 90.0, 150.0, 90.0].map(|line| [line]);
        let lines: Vec<&[f64]> = lines.iter().map(|lines| &lines[..]).collect();
        assert_eq!(kept(&lines), (vec![0, 2, 3, 5, 7], 3));
    }

    #[test]
    fn all_count_where_none_was_in_one_place() {
        assert_eq!(kept(&[&[150.0, 540.0], &[540.0, 150.0]]), (vec![0, 1], 0));
        assert_eq!(kept(&[&[0.0]]), (vec![0], 0), "a line that could not be timed");
    }

    #[test]
    fn what_was_not_measured_has_none_that_count() {
        let mut places = Places::default();
        places.note(&[1.0]);
        assert!(places.commonest().of(Vec::<u8>::new()).is_empty());
    }
}
