package shop

import "math/rand/v2"

// pool holds rows to choose from.
type pool[T any] struct {
	items []T
}

func (p *pool[T]) len() int { return len(p.items) }

func (p *pool[T]) add(item T) { p.items = append(p.items, item) }

// pick returns the place of a random item.
func (p *pool[T]) pick(rng *rand.Rand) int { return rng.IntN(len(p.items)) }

// remove takes an item out; the last one gets its place.
func (p *pool[T]) remove(i int) T {
	item := p.items[i]
	last := len(p.items) - 1
	p.items[i] = p.items[last]
	p.items = p.items[:last]
	return item
}

// some returns the places of up to n different items.
func (p *pool[T]) some(rng *rand.Rand, n int) []int {
	n = min(n, len(p.items))
	if n == 0 {
		return nil
	}
	places := make([]int, n)
	start := p.pick(rng)
	for i := range places {
		places[i] = (start + i) % len(p.items)
	}
	return places
}
