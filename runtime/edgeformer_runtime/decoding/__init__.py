"""From a speech decoder's logits to text: prompts, rules, searches, fallback, and the times of words."""
