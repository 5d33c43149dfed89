package formats

// Grow returns list with room for one more at least and, when it is full, for as
// many as there will be if the rest is as what is done of all: lists of unknown
// length would else take twice their room while they grow.
func Grow[T any](list []T, done, all int64) []T {
	if len(list) < cap(list) {
		return list
	}
	const least = 16
	more := least + len(list)/8
	if done > 0 && all > done {
		rest := float64(all-done) / float64(done) * float64(len(list))
		more = least + int(min(rest*17/16, float64(len(list)*4)))
	}
	grown := make([]T, len(list), len(list)+more)
	copy(grown, list)
	return grown
}
