from __future__ import annotations

import torch
from tiny_policy import full_logprobs, gradient_of, recorded_batch, tiny_model, tiny_policy


def test_chunked_logprobs_are_those_of_the_full_logits():
    model = tiny_model()
    policy, batch = tiny_policy(model, logprob_chunk_tokens=5), recorded_batch()
    expected, _ = full_logprobs(model.module, batch)
    torch.testing.assert_close(policy.logprobs(batch), expected.detach() * batch.trained)


def test_gradient_is_that_of_the_full_logits():
    model = tiny_model()
    policy, batch = tiny_policy(model, logprob_chunk_tokens=5, sampler_correction_cap=None), recorded_batch()
    logprobs, _ = full_logprobs(model.module, batch)
    loss = -(batch.weights[:, None] * batch.advantages[:, None] * logprobs * batch.trained).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.module.parameters()))])
    torch.testing.assert_close(gradient_of(policy, batch), expected)


def test_update_moves():
    policy = tiny_policy()
    print(policy.update(recorded_batch(), 1e-3))
