"""Tests that take seconds and are left out by `make check`: the largest users of CPU time of the whole suite.

The figures are CPU seconds of all cases of a test, its child processes included, on two busy cores of an Intel Xeon
with AMX (those of videos: of an AMD EPYC). Tests may also carry `@pytest.mark.slow` themselves.
"""

from __future__ import annotations

SLOW: dict[str, dict[str, float]] = {
    "tests/benchmarks/test_count_step.py": {
        "test_no_count_of_a_step_grows": 20.0,
        "test_nothing_in_an_evaluation_on_a_cpu_is_larger_than_the_logits": 6.0,
    },
    "tests/benchmarks/test_gpu_report.py": {
        "test_a_dry_run_goes_through_every_stage_and_says_that_nothing_was_measured": 20.7,
    },
    "tests/benchmarks/test_residence.py": {
        "test_memory_of_preparing_and_of_training_from_the_file_does_not_grow_with_the_videos": 25.0,
    },
    "tests/docs/test_add_a_kernel.py": {
        "test_the_guide_leads_to_a_kernel_that_agrees_with_the_loops": 6.4,
    },
    "tests/docs/test_add_a_loss.py": {
        "test_the_guide_leads_to_a_term_that_is_tested_and_trains": 6.8,
    },
    "tests/lab/test_cluster.py": {
        "test_a_job_that_is_put_back_into_the_queue_continues_and_one_that_is_stopped_waits_for_the_next_command": 12.0,
        "test_jobs_end_as_processes_do_and_a_failure_is_of_its_run_alone": 8.0,
    },
    "tests/docs/test_demo_video.py": {
        "test_the_whole_way_ends_with_answers_near_the_truth": 5.4,
    },
    "tests/features/test_main.py": {
        "test_an_ended_program_continues_where_it_was": 8.0,
    },
    "tests/ops/test_chain.py": {
        "test_gradients_through_masks_that_vanish_nearly_everywhere_agree_with_float64": 7.3,
    },
    "tests/ops/test_derivatives.py": {
        "test_an_op_is_exported_and_compiled_as_it_is": 6.8,
        "test_a_second_derivative_through_a_kernel_is_refused_in_words": 4.1,
    },
    "tests/ops/test_masked_attention.py": {
        "test_the_kernel_agrees_with_the_loops": 4.9,
    },
    "tests/ops/test_reconstruction_nll.py": {
        "test_the_kernel_agrees_with_the_loops": 8.2,
    },
    "tests/ops/test_residual_norm.py": {
        "test_programs_of_the_backward_pass_take_any_number_of_blocks": 6.2,
    },
    "tests/ops/test_shared_attention.py": {
        "test_the_kernel_takes_odd_shapes_and_views_of_a_packed_projection": 6.4,
        "test_the_kernel_agrees_with_the_loops": 4.4,
    },
    "tests/reconstructor/test_shared.py": {
        "test_schedules_agree": 7.3,
    },
    "tests/test_backends_agree.py": {
        "test_twenty_steps_of_training_have_the_same_losses": 19.1,
        "test_a_golden_file_has_the_same_loss_and_gradients": 7.0,
        "test_a_step_with_dropout_has_the_same_loss_and_gradients": 4.8,
        "test_a_step_of_every_preset_has_the_same_loss_and_gradients": 14.0,
    },
    "tests/test_info.py": {
        "test_the_command_prints_versions_devices_and_every_op": 5.8,
    },
    "tests/test_main.py": {
        "test_a_verb_prints_what_the_module_prints": 6.4,
    },
    "tests/test_model_step.py": {
        "test_every_choice_takes_a_training_step_and_trains_all_that_has_something_to_do": 3.8,
    },
    "tests/test_mutants.py": {
        "test_a_fault_is_found_and_a_change_that_is_none_is_not": 6.1,
    },
    "tests/test_public.py": {
        "test_names_are_the_same_object_at_every_access_before_and_after_other_imports": 6.0,
    },
    "tests/test_randomness.py": {
        "test_neighbors_and_lags_are_uncorrelated": 10.2,
    },
    "tests/train/test_compile.py": {
        "test_no_count_of_compilations_grows": 11.9,
    },
    "tests/train/test_fake_step.py": {
        "test_the_calls_are_those_of_a_real_step_in_their_order": 17.6,
        "test_the_paper_s_step_takes_seconds_and_warns_of_nothing": 6.0,
        "test_a_gpu_takes_all_masks_at_once_and_projects_the_memory": 4.4,
    },
    "tests/train/test_video_gain.py": {
        "test_where_the_video_shows_the_sentence_its_gain_grows_beyond_the_margins_and_nothing_is_said": 6.0,
        "test_random_features_gain_nothing_and_that_is_said_once": 6.0,
    },
}
